"""OpenAI's endpoints for plain texts: completions and embeddings."""

from __future__ import annotations

import base64
import struct
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
    check_scores,
    completion_logprobs,
    extension,
    finish_reason,
    frames,
    usage,
)
from housecall.server.openai_text_wire import (
    CompletionRequest,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
)
from housecall.server.streams import (
    EventStream,
    Owner,
    Served,
    check_model,
    first_event,
    while_connected,
    whole_answer,
)
from housecall.server.wire import GuardBody
from housecall.types import TokenScore

router = APIRouter(prefix="/v1", tags=["OpenAI"])

_ASKING = responses(400, 401, 404, 413, 429, 503, 504)


@router.post("/completions", response_model=None, responses=_ASKING)
async def completions(
    body: CompletionRequest, request: Request, answerer: Served, owner: Owner
) -> dict[str, Any] | Response:
    """Go on with a text, read by the guard as a message is; the chat template is left out."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="openai",
        request_id=request.state.request_id,
        messages=body.messages(),
        sampling=body.sampling(),
        raw=True,
        owner=owner,
    )
    check_scores(request, body.logprobs)
    scored = body.logprobs is not None
    if not body.stream:
        return _completion(await whole_answer(request, answerer, asked), scored=scored)
    first, rest = await first_event(request, answerer, asked)
    chunks = _Chunks(asked.answer_id, body.model, body.stream_options.include_usage)
    events = frames(request, asked, first, rest, chunks.of)
    return EventStream(events, rest, request.app.state.settings.send_timeout)


@router.post("/embeddings", responses=_ASKING)
async def embeddings(body: EmbeddingRequest, request: Request, answerer: Served) -> EmbeddingList:
    """Vectors of texts: the mean of the served model's last states, made length 1.

    A chat model's vectors tell subjects apart; a model made for them finds more.
    """
    check_model(answerer, body.model)
    made = await while_connected(request, answerer.embed(body.texts()))
    tokens = sum(one.tokens for one in made)
    request.state.log.update(prompt_tokens=tokens)
    encode = _base64 if body.encoding_format == "base64" else list
    return EmbeddingList(
        data=[Embedding(index=i, embedding=encode(one.vector)) for i, one in enumerate(made)],
        model=answerer.model.name,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@dataclass(slots=True)
class _Chunks:
    """Events as chunks of one completion."""

    id: str
    model: str
    with_usage: bool
    _created: int = field(default_factory=lambda: int(time.time()))
    _said: int = 0  # characters
    _gap: str = ""

    def of(self, event: Event) -> list[dict[str, Any]]:
        """The chunks of an event."""
        match event:
            case Guarded():
                guard = GuardBody.model_validate(event.guard).model_dump()
                chunk = self._chunk(event.guard.message)
                self._gap = _gap(event.guard.message)
                return [chunk | {"housecall": {"guard": guard}}]
            case Token():
                text, self._gap = self._gap + event.text, ""
                return [self._chunk(text, scores=event.scores, before=len(text) - len(event.text))]
            case Done():
                end = self._chunk("", reason=finish_reason(event.answer))
                end |= {"housecall": extension(event.answer)}
                if not self.with_usage:
                    return [end]
                return [end | {"usage": None}, self._envelope([]) | {"usage": usage(event.answer)}]

    def _chunk(
        self,
        text: str,
        *,
        scores: Sequence[TokenScore] = (),
        before: int = 0,
        reason: str | None = None,
    ) -> dict[str, Any]:
        logprobs = completion_logprobs(scores, self._said + before) if scores else None
        self._said += len(text)
        return self._envelope([_choice(text, logprobs, reason)])

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return _envelope(self.id, self.model, self._created, choices)


def _completion(answer: Answer, *, scored: bool) -> dict[str, Any]:
    logprobs = None
    if scored:
        message = answer.guard.message
        logprobs = completion_logprobs(answer.scores, len(message + _gap(message)))
    choice = _choice(answer.text, logprobs, finish_reason(answer))
    body = _envelope(answer.id, answer.model.name, int(time.time()), [choice])
    return body | {"usage": usage(answer), "housecall": extension(answer)}


def _gap(message: str) -> str:
    """What stands between the guard's message, if it has one, and the model's text."""
    return PARAGRAPH if message else ""


def _choice(text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _envelope(
    answer_id: str, model: str, created: int, choices: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
    }
