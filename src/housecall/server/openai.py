"""The OpenAI wire format, for clients that speak it unchanged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from housecall.draft import PARAGRAPH
from housecall.events import Answer, AnswerRequest, Done, Event, Guarded, Token
from housecall.server.errors import responses
from housecall.server.openai_answer import (
    chat_logprobs,
    check_scores,
    extension,
    finish_reason,
    frames,
    usage,
)
from housecall.server.openai_wire import ChatCompletionRequest, OpenAIModel, OpenAIModelList
from housecall.server.streams import (
    EventStream,
    Owner,
    Served,
    check_model,
    first_event,
    whole_answer,
)
from housecall.server.wire import GuardBody
from housecall.types import TokenScore

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.get("/models", responses=responses(401))
def models(request: Request, answerer: Served) -> OpenAIModelList:
    """The models that answer here."""
    model = OpenAIModel(id=answerer.model.name, created=request.app.state.created)
    return OpenAIModelList(data=[model])


@router.get("/models/{name:path}", responses=responses(401, 404))
def model(name: str, request: Request, answerer: Served) -> OpenAIModel:
    """One model that answers here."""
    check_model(answerer, name)
    return OpenAIModel(id=name, created=request.app.state.created)


@router.post(
    "/chat/completions", response_model=None, responses=responses(400, 401, 404, 413, 429, 503, 504)
)
async def chat_completions(
    body: ChatCompletionRequest, request: Request, answerer: Served, owner: Owner
) -> dict[str, Any] | Response:
    """Answer a conversation; nothing of it is saved, only the answer's lineage."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="openai",
        request_id=request.state.request_id,
        messages=tuple(message.message() for message in body.messages),
        sampling=body.sampling(),
        owner=owner,
    )
    check_scores(request, asked.sampling.top_logprobs)
    if not body.stream:
        return _completion(await whole_answer(request, answerer, asked), scored=body.logprobs)
    first, rest = await first_event(request, answerer, asked)
    chunks = _Chunks(asked.answer_id, body.model, body.stream_options.include_usage)
    events = frames(request, asked, first, rest, chunks.of)
    return EventStream(events, rest, request.app.state.settings.send_timeout)


@dataclass(slots=True)
class _Chunks:
    """Events as chunks of one completion."""

    id: str
    model: str
    with_usage: bool
    _created: int = field(default_factory=lambda: int(time.time()))
    _gap: str = ""
    _begun: bool = False

    def of(self, event: Event) -> list[dict[str, Any]]:
        """The chunks of an event; the role comes before the first one."""
        begin = [] if self._begun else [self.chunk({"role": "assistant", "content": ""})]
        self._begun = True
        return begin + self._of(event)

    def _of(self, event: Event) -> list[dict[str, Any]]:
        match event:
            case Guarded():
                message = event.guard.message
                self._gap = PARAGRAPH if message else ""
                guard = GuardBody.model_validate(event.guard).model_dump()
                return [self.chunk({"content": message}) | {"housecall": {"guard": guard}}]
            case Token():
                text, self._gap = self._gap + event.text, ""
                return [self.chunk({"content": text}, scores=event.scores)]
            case Done():
                return self._last(event.answer)

    def chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        scores: Sequence[TokenScore] = (),
    ) -> dict[str, Any]:
        """One chunk."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": chat_logprobs(scores) if scores else None,
            "finish_reason": finish_reason,
        }
        return self._envelope([choice], None)

    def _last(self, answer: Answer) -> list[dict[str, Any]]:
        end = self.chunk({}, finish_reason(answer)) | {"housecall": extension(answer)}
        return [end, self._envelope([], usage(answer))] if self.with_usage else [end]

    def _envelope(
        self, choices: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        envelope: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }
        return envelope | {"usage": usage} if self.with_usage else envelope


def _completion(answer: Answer, *, scored: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": chat_logprobs(answer.scores) if scored else None,
        "finish_reason": finish_reason(answer),
    }
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.model.name,
        "choices": [choice],
        "usage": usage(answer),
        "housecall": extension(answer),
    }
