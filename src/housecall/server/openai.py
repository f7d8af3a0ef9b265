"""The OpenAI wire format, for clients that speak it unchanged."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from housecall.draft import PARAGRAPH
from housecall.events import Answer, AnswerRequest, Done, Event, Guarded, Token
from housecall.server.errors import responses
from housecall.server.openai_wire import ChatCompletionRequest, OpenAIModel, OpenAIModelList
from housecall.server.streams import (
    EventStream,
    Owner,
    Served,
    check_model,
    error_data,
    first_event,
    frame,
    note,
    whole_answer,
)
from housecall.server.wire import GenerateResponse, GuardBody

router = APIRouter(prefix="/v1", tags=["OpenAI"])

_DONE = "data: [DONE]\n\n"


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
    if not body.stream:
        return _completion(await whole_answer(request, answerer, asked))
    first, rest = await first_event(request, answerer, asked)
    chunks = _Chunks(asked.answer_id, body.model, body.stream_options.include_usage)
    frames = _frames(request, asked, first, rest, chunks)
    return EventStream(frames, rest, request.app.state.settings.send_timeout)


async def _frames(
    request: Request,
    asked: AnswerRequest,
    first: Event,
    rest: AsyncGenerator[Event, None],
    chunks: _Chunks,
) -> AsyncGenerator[str, None]:
    try:
        yield frame(chunks.chunk({"role": "assistant", "content": ""}))
        for chunk in chunks.of(first):
            yield frame(chunk)
        async for event in rest:
            if isinstance(event, Done):
                note(request, asked, event.answer)
            for chunk in chunks.of(event):
                yield frame(chunk)
    except Exception as error:
        yield frame(error_data(request, error))
    yield _DONE


@dataclass(slots=True)
class _Chunks:
    """Events as chunks of one completion."""

    id: str
    model: str
    with_usage: bool
    _created: int = field(default_factory=lambda: int(time.time()))
    _gap: str = ""

    def of(self, event: Event) -> list[dict[str, Any]]:
        """The chunks of an event."""
        match event:
            case Guarded():
                message = event.guard.message
                self._gap = PARAGRAPH if message else ""
                guard = GuardBody.model_validate(event.guard).model_dump()
                return [self.chunk({"content": message}) | {"housecall": {"guard": guard}}]
            case Token():
                text, self._gap = self._gap + event.text, ""
                return [self.chunk({"content": text})]
            case Done():
                return self._last(event.answer)

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._envelope([choice], None)

    def _last(self, answer: Answer) -> list[dict[str, Any]]:
        end = self.chunk({}, _finish_reason(answer)) | {"housecall": _extension(answer)}
        return [end, self._envelope([], _usage(answer))] if self.with_usage else [end]

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


def _completion(answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(answer),
    }
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer.model.name,
        "choices": [choice],
        "usage": _usage(answer),
        "housecall": _extension(answer),
    }


def _finish_reason(answer: Answer) -> str:
    """OpenAI's word: clients hide or refuse what ends with its ``content_filter``.

    An emergency message must be shown, so ``guard`` becomes ``stop``; ``housecall`` tells it.
    """
    return "length" if answer.finish_reason == "length" else "stop"


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _extension(answer: Answer) -> dict[str, Any]:
    """What OpenAI's format has no place for."""
    body = GenerateResponse.of(answer)
    return body.model_dump(include={"request_id", "finish_reason", "timings", "guard", "model"})
