"""Answers over HTTP: whole or as server-sent events, cancelled when the client goes away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from housecall.answer import Answerer
from housecall.events import Answer, AnswerRequest, Done, Event
from housecall.server.errors import ApiError, ClientGone, describe

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def served(request: Request) -> Answerer:
    """What answers in this app."""
    answerer: Answerer = request.app.state.answerer
    return answerer


def owner(request: Request) -> str:
    """Whose request it is: a digest of its API key, empty where no key is asked for."""
    found: str = getattr(request.state, "owner", "")
    return found


Served = Annotated[Answerer, Depends(served)]
Owner = Annotated[str, Depends(owner)]


class EventStream(StreamingResponse):
    """Sends frames made from events until the client goes away; closes both either way."""

    def __init__(
        self,
        frames: AsyncGenerator[str, None],
        events: AsyncGenerator[Event, None],
        send_timeout: float,
        session_id: str | None = None,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if session_id is not None:  # for a client that does not stay until the end
            headers["X-Session-ID"] = session_id
        super().__init__(frames, headers=headers, media_type="text/event-stream")
        self._frames = frames
        self._events = events
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                await _gone(receive)
                group.cancel_scope.cancel()

            group.start_soon(watch)

            async def send_in_time(message: Message) -> None:
                # The server waits here until the client has read enough of what was sent before.
                async with asyncio.timeout(self._send_timeout):
                    await send(message)

            try:
                await self.stream_response(send_in_time)
            except TimeoutError:
                scope["state"]["log"]["cut_off"] = "slow reader"
            except asyncio.CancelledError:
                scope["state"]["log"]["cut_off"] = "client gone"
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await self._frames.aclose()
                    await self._events.aclose()
            group.cancel_scope.cancel()


def frame(data: object, event: str | None = None) -> str:
    """One server-sent event; its data is one line of ASCII, whatever the text has in it."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n"


async def whole_answer(request: Request, answerer: Answerer, asked: AnswerRequest) -> Answer:
    """The answer at once. Raises ClientGone when the client does not wait for it."""
    events = answerer.answer(asked)
    answer = await while_connected(request, _last(events))
    note(request, asked, answer)
    return answer


async def first_event(
    request: Request, answerer: Answerer, asked: AnswerRequest
) -> tuple[Event, AsyncGenerator[Event, None]]:
    """The first event of a stream and the rest, so that what fails early has its own status."""
    events = answerer.answer(asked)
    return await while_connected(request, anext(events)), events


def error_data(request: Request, error: Exception) -> dict[str, Any]:
    """The data of an error in the middle of a stream, which is also logged."""
    request_id = request.state.request_id
    _log.error(
        "an answer failed in the middle",
        exc_info=error,
        extra={"fields": {"request_id": request_id}},
    )
    request.state.log["error"] = type(error).__name__
    return describe(error, request_id)


def note(request: Request, asked: AnswerRequest, answer: Answer) -> None:
    """Add an answer's facts to the log line of its request; texts only if the settings say so."""
    facts: dict[str, Any] = {
        "answer_id": answer.id,
        "session": _hash(answer.session_id),
        "finish_reason": answer.finish_reason,
        "guard": answer.guard.level,
        "prompt_tokens": answer.usage.prompt_tokens,
        "cached_tokens": answer.usage.cached_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "ttft_ms": answer.timings.ttft_ms,
    }
    if request.app.state.settings.log_text:
        facts |= {"prompt": asked.messages[-1].content, "text": answer.text}
    request.state.log.update(facts)


def _hash(session_id: str | None) -> str | None:
    """Lines of one session can be told apart, and nobody can open it with what a log holds."""
    if session_id is None:
        return None
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()[:12]


def check_model(answerer: Answerer, name: str | None) -> None:
    """Raise 404 for a model that is not served."""
    served = answerer.model.name
    if name is not None and name != served:
        raise ApiError(
            404,
            f"the model {name!r} is not served here: leave it out or ask for {served!r}",
            code="model_not_found",
            param="model",
        )


async def _last(events: AsyncGenerator[Event, None]) -> Answer:
    *_, done = [event async for event in events]
    assert isinstance(done, Done)
    return done.answer


async def while_connected(request: Request, work: Awaitable[_Result]) -> _Result:
    """The result of ``work``, which is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
