"""The order of an answer, the same for every way to ask.

The guard reads the message, and its own message goes out first; memory chooses the window; the
chat template makes token ids; the engine streams; the session and the answer's lineage are saved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread

from housecall.chat_template import ChatTemplate
from housecall.draft import Draft
from housecall.engines.base import Engine
from housecall.errors import (
    EngineBusy,
    EngineTimeout,
    EngineUnavailable,
    HousecallError,
    SessionInUse,
)
from housecall.events import Answer, AnswerRequest, Done, Event, Guarded, Token
from housecall.guard.base import Guard
from housecall.memory import Memory, NewestTurns, WholeConversation, Window, encoder
from housecall.sessions import SessionStore, Status, new_id
from housecall.settings import Settings
from housecall.types import Message, Sampling, ServedModel

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Answerer:
    """Answers questions with one model.

    ``start`` loads the model; before that, and whenever the engine is down, emergencies are still
    answered with the guard's message.
    """

    def __init__(
        self,
        engine: Engine,
        guard: Guard,
        model: ServedModel,
        store: SessionStore,
        settings: Settings,
    ) -> None:
        self.model = model
        self.store = store
        self._engine = engine
        self._guard = guard
        self._settings = settings
        self._template: ChatTemplate | None = None
        self._sessions_in_use: set[str] = set()
        self._places_taken = 0

    async def start(self) -> None:
        """Load the model. Raises EngineError, or ConfigError for a broken chat template."""
        await self._engine.start()
        info = self._engine.info
        self._template = ChatTemplate(
            info.chat_template, bos_token=info.bos_token, eos_token=info.eos_token
        )

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    async def ready(self) -> bool:
        """True when a question asked now would be answered by the model."""
        return self._template is not None and await self._engine.ready()

    @contextmanager
    def hold(self, session_id: str) -> Iterator[None]:
        """Keep a session to oneself. Raises SessionInUse."""
        if session_id in self._sessions_in_use:
            raise SessionInUse(
                f"session {session_id!r} is being answered: wait for that answer, or cancel it"
            )
        self._sessions_in_use.add(session_id)
        try:
            yield
        finally:
            self._sessions_in_use.discard(session_id)

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Event, None]:
        """Answer one question; closing the generator cancels it and saves what was said.

        Raises NotFound, SessionInUse, ContextLengthExceeded, ConfigError (the chat template or
        the engine refuses the request) and EngineError. After an emergency message no failure of
        a later stage is raised: the message is the answer.
        """
        session_id = request.session_id or (new_id("ses") if request.kind == "chat" else None)
        with self.hold(session_id) if session_id else nullcontext():
            messages = await self._conversation(request)
            guard = self._guard.check(messages[-1].content, messages[:-1])
            draft = Draft(request, session_id, messages, guard)
            try:
                if guard.level != "none":
                    yield Guarded(guard)
                await self._save_question(draft)
                async with aclosing(self._ask_model(draft)) as pieces:
                    async for piece in pieces:
                        yield Token(piece)
            except HousecallError as error:
                if not draft.urgent:
                    await self._save(draft, "error")
                    raise
                _log.warning("the guard's message is the answer: %s", error)
                draft.finish_reason = "guard"
            except (asyncio.CancelledError, GeneratorExit):
                draft.finish_reason = "cancelled"
                with anyio.CancelScope(shield=True):
                    await self._save(draft, "cancelled")
                raise
            answer = await self._finish(draft)
        yield Done(answer)  # the session is free again before anyone hears of it

    async def _conversation(self, request: AnswerRequest) -> list[Message]:
        """All messages: the system prompt first, the new one last."""
        messages = list(request.messages)
        system = self.model.system_prompt
        if request.session_id is not None:
            saved = await to_thread.run_sync(self.store.session, request.session_id)
            messages[-1:-1] = [Message(m.role, m.content) for m in saved.messages if m.content]
            system = saved.system or system
        if system and not any(message.role == "system" for message in messages):
            messages.insert(0, Message("system", system))
        return messages

    async def _save_question(self, draft: Draft) -> None:
        if draft.session_id is None:
            return
        request = draft.request
        given = [message.content for message in request.messages if message.role == "system"]
        begin_turn = partial(
            self.store.begin_turn,
            draft.session_id,
            request.messages[-1].content,
            new=request.session_id is None,
            system=given[0] if given else None,
            model=self.model.name,
        )
        draft.turn = await to_thread.run_sync(begin_turn)

    async def _ask_model(self, draft: Draft) -> AsyncGenerator[str, None]:
        """The model's text; the draft keeps what came of it."""
        if self._stops_after(draft.guard.level):
            draft.finish_reason = "guard"
            return
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout
        with self._place() as template:
            window = await self._in_time(deadline, self._window(draft, template))
            draft.window = window
            stream = self._engine.stream(window.prompt, self._sampling(draft))
            reader = self._guard.answer_reader(draft.guard, draft.messages)
            async with aclosing(stream) as chunks:
                while chunk := await self._in_time(deadline, anext(chunks, None)):
                    allowed = reader.read(chunk.text)
                    draft.add(replace(chunk, text=allowed))
                    if allowed:
                        yield allowed
                    if reader.stopped:
                        draft.finish_reason = "guard"
                        break
            if rest := reader.close():
                draft.add_text(rest)
                yield rest
            draft.guard = replace(draft.guard, output=reader.findings)

    def _stops_after(self, level: str) -> bool:
        settings = self._settings
        policy = {
            "emergency": settings.after_emergency,
            "crisis": settings.after_crisis,
            "off_topic": "stop" if settings.off_topic == "refuse" else "continue",
        }
        return policy.get(level) == "stop"

    @contextmanager
    def _place(self) -> Iterator[ChatTemplate]:
        """A place in the engine or in the queue before it, and the model's template."""
        if self._template is None:
            raise EngineUnavailable("the model is still loading: try again in a moment")
        if self._places_taken >= self._engine.info.parallel + self._settings.queue:
            raise EngineBusy("all places are taken: try again in a moment")
        self._places_taken += 1
        try:
            yield self._template
        finally:
            self._places_taken -= 1

    async def _in_time(self, deadline: float, work: Awaitable[_Result]) -> _Result:
        try:
            async with asyncio.timeout_at(deadline):
                return await work
        except TimeoutError:
            seconds = self._settings.request_timeout
            raise EngineTimeout(
                f"the answer was not ready within {seconds:g} s: ask for fewer max_tokens, "
                "or serve with a larger HOUSECALL_REQUEST_TIMEOUT"
            ) from None

    async def _window(self, draft: Draft, template: ChatTemplate) -> Window:
        memory: Memory = NewestTurns() if draft.session_id else WholeConversation()
        return await memory.window(
            draft.messages,
            n_ctx=self._engine.info.n_ctx,
            max_tokens=draft.request.sampling.max_tokens,
            encode=encoder(template, self._engine.tokenize),
        )

    def _sampling(self, draft: Draft) -> Sampling:
        sampling = draft.request.sampling
        fixed = self._settings.deterministic and sampling.seed is None
        return replace(sampling, seed=0) if fixed else sampling

    async def _finish(self, draft: Draft) -> Answer:
        try:
            await self._save(draft, "complete")
        except HousecallError as error:
            if not draft.urgent:
                raise
            _log.warning("an emergency was answered, but the answer is not saved: %s", error)
        return draft.answer(self.model)

    async def _save(self, draft: Draft, status: Status) -> None:
        """Save the lineage and the text; of an answer that was cut off only if it has text."""
        text = draft.text
        if text or status == "complete":
            record = draft.record(self.model, self._guard.version)
            await to_thread.run_sync(self.store.save_answer, record, text, status)
