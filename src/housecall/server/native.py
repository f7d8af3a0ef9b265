"""Housecall's own endpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from housecall.answer import Answerer
from housecall.events import AnswerRequest, Done, Event, Guarded, Token
from housecall.server.errors import responses
from housecall.server.streams import (
    EventStream,
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
    GenerateRequest,
    GenerateResponse,
    GuardBody,
    ModelBody,
    ModelList,
    SessionList,
)
from housecall.sessions import AnswerRecord, SavedSession

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
async def generate(body: GenerateRequest, request: Request, answerer: Served) -> object:
    """Answer one question; nothing of the conversation is saved, only the answer's lineage."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="generate",
        request_id=request.state.request_id,
        messages=body.messages(),
        sampling=body.sampling(),
    )
    return await _reply(request, answerer, asked, GenerateResponse, stream=body.stream)


@router.post(
    "/chat",
    tags=["answers"],
    response_model=ChatResponse,
    responses=_ASKING | responses(409) | _STREAM,
)
async def chat(body: ChatRequest, request: Request, answerer: Served) -> object:
    """Answer the next message of a conversation, which is saved."""
    check_model(answerer, body.model)
    asked = AnswerRequest(
        kind="chat",
        request_id=request.state.request_id,
        messages=body.messages(),
        sampling=body.sampling(),
        session_id=body.session_id,
    )
    return await _reply(request, answerer, asked, ChatResponse, stream=body.stream)


@router.get("/sessions", tags=["sessions"], responses=responses(401, 404, 422))
def sessions(
    answerer: Served,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(description="The id of the last session seen.")] = None,
) -> SessionList:
    """Saved conversations, newest first."""
    found = answerer.store.sessions(limit=limit + 1, before=before)
    more = len(found) > limit
    return SessionList(sessions=found[:limit], next=found[limit - 1].id if more else None)


@router.get("/sessions/{session_id}", tags=["sessions"], responses=responses(401, 404))
def session(session_id: str, answerer: Served) -> SavedSession:
    """One conversation with its messages."""
    return answerer.store.session(session_id)


@router.delete(
    "/sessions/{session_id}",
    tags=["sessions"],
    status_code=204,
    responses=responses(401, 404, 409),
)
async def delete_session(session_id: str, answerer: Served) -> None:
    """Delete a conversation and the lineage of its answers, for good."""
    with answerer.hold(session_id):
        await to_thread.run_sync(answerer.store.delete_session, session_id)


@router.get("/answers/{answer_id}", tags=["answers"], responses=responses(401, 404))
def answer(answer_id: str, answerer: Served) -> AnswerRecord:
    """What stands behind an answer, from the model down to the hash of the data."""
    return answerer.store.answer(answer_id)


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
    return EventStream(_frames(request, asked, first, rest, body), rest)


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
