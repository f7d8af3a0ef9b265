"""Housecall's own endpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from housecall.answer import Answerer
from housecall.events import AnswerRequest, Done, Event, Guarded, Token
from housecall.records import AnswerRecord, Feedback
from housecall.server.errors import responses
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
from housecall.server.wire import (
    ChatRequest,
    ChatResponse,
    FeedbackRequest,
    GenerateRequest,
    GenerateResponse,
    GuardBody,
    ModelBody,
    ModelList,
)

router = APIRouter()

_ASKING = responses(400, 401, 404, 413, 422, 429, 503, 504)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "example": 'event: token\ndata: {"text": "Drink"}\n\n'
                'event: done\ndata: {"id": "ans_...", "text": "Drink", ...}\n\n'
            }
        },
        "description": "The answer; with `stream` as events `guard`, `token`, `error`, `done`.",
    }
}


@router.post(
    "/generate", tags=["answers"], response_model=GenerateResponse, responses=_ASKING | _STREAM
)
async def generate(
    body: GenerateRequest, request: Request, answerer: Served, owner: Owner
) -> object:
    """Answer one question; nothing of the conversation is saved, only the answer's lineage."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="generate",
        request_id=request.state.request_id,
        messages=body.messages(),
        sampling=body.sampling(),
        owner=owner,
    )
    return await _reply(request, answerer, asked, GenerateResponse, stream=body.stream)


@router.post(
    "/chat",
    tags=["answers"],
    response_model=ChatResponse,
    responses=_ASKING | responses(409) | _STREAM,
)
async def chat(body: ChatRequest, request: Request, answerer: Served, owner: Owner) -> object:
    """Answer the next message of a conversation, which is saved."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="chat",
        request_id=request.state.request_id,
        messages=body.messages(),
        sampling=body.sampling(),
        session_id=body.session_id,
        owner=owner,
    )
    return await _reply(request, answerer, asked, ChatResponse, stream=body.stream)


@router.get("/answers/{answer_id}", tags=["answers"], responses=responses(401, 404, 503))
def answer(answer_id: str, answerer: Served, owner: Owner) -> AnswerRecord:
    """What stands behind an answer, from the model down to the hash of the data."""
    return answerer.store.answer(answer_id, owner)


@router.post(
    "/answers/{answer_id}/feedback", tags=["answers"], responses=responses(401, 404, 413, 503)
)
def give_feedback(
    answer_id: str, body: FeedbackRequest, answerer: Served, owner: Owner
) -> Feedback:
    """Say what you think of an answer, in place of what you said before."""
    return answerer.store.give_feedback(answer_id, body.rating, body.comment, owner)


@router.get("/answers/{answer_id}/feedback", tags=["answers"], responses=responses(401, 404, 503))
def feedback(answer_id: str, answerer: Served, owner: Owner) -> Feedback:
    """What was said of an answer."""
    return answerer.store.feedback(answer_id, owner)


@router.get("/models", tags=["models"], responses=responses(401))
def models(answerer: Served) -> ModelList:
    """The models that answer here."""
    return ModelList(models=[ModelBody.model_validate(answerer.model)])


async def _reply(
    request: Request,
    answerer: Answerer,
    asked: AnswerRequest,
    body: type[GenerateResponse],
    *,
    stream: bool,
) -> GenerateResponse | Response:
    if not stream:
        return body.of(await whole_answer(request, answerer, asked))
    first, rest = await first_event(request, answerer, asked)
    frames = _frames(request, asked, first, rest, body)
    timeout = request.app.state.settings.send_timeout
    return EventStream(frames, rest, timeout, asked.answered_in)


async def _frames(
    request: Request,
    asked: AnswerRequest,
    first: Event,
    rest: AsyncGenerator[Event, None],
    body: type[GenerateResponse],
) -> AsyncGenerator[str, None]:
    def to_frame(event: Event) -> str:
        match event:
            case Guarded():
                return frame(GuardBody.model_validate(event.guard).model_dump(), "guard")
            case Token():
                return frame({"text": event.text}, "token")
            case Done():
                note(request, asked, event.answer)
                return frame(body.of(event.answer).model_dump(), "done")

    try:
        yield to_frame(first)
        async for event in rest:
            yield to_frame(event)
    except Exception as error:
        yield frame(error_data(request, error), "error")
