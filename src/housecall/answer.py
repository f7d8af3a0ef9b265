"""The order of an answer, the same for every way to ask.

The guard reads the message, and its own message goes out first; memory chooses the window; the
chat template makes token ids; the engine streams; the session and the answer's lineage are saved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

import anyio
from anyio import to_thread

from housecall.chat_template import ChatTemplate
from housecall.deadline import Cut, Deadlines
from housecall.draft import Draft
from housecall.engines.base import Engine
from housecall.errors import ConfigError, ContextLengthExceeded, EngineBusy, HousecallError
from housecall.events import Answer, AnswerRequest, Done, Embedded, Event, Guarded, Token
from housecall.guard.base import Guard
from housecall.memory import (
    Conversation,
    Encode,
    KnownTokens,
    Window,
    choose_window,
    raw_encoder,
    resumed,
)
from housecall.places import Places
from housecall.records import Status
from housecall.sessions import SessionStore
from housecall.settings import Settings
from housecall.types import Message, ServedModel

_log = logging.getLogger(__name__)

_SECONDS_TO_SAVE = 5


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
        self._known_tokens = KnownTokens()
        self._places = Places(engine, settings.queue)
        self._open = 0
        self._deadlines = Deadlines(settings.request_timeout)
        self.on_end: Callable[[Draft, Status], None] = lambda draft, status: None

    async def start(self, loading: Awaitable[None] | None = None) -> None:
        """Load the model; ``loading`` is the engine's start, if that was begun already.

        Raises EngineError, or ConfigError for a broken chat template.
        """
        await (loading or self._engine.start())
        info = self._engine.info
        self._template = ChatTemplate(
            info.chat_template, bos_token=info.bos_token, eos_token=info.eos_token
        )
        self._places.loaded = True

    async def close(self) -> None:
        """Stop the engine, once the answers that were cut off are saved."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_SAVE):
                while self._open:
                    await asyncio.sleep(0.01)
        await self._engine.close()

    async def ready(self) -> bool:
        """True when a question asked now would be answered by the model."""
        if self._places.draining or not self._places.loaded:
            return False
        return await self._engine.ready()

    @property
    def load(self) -> tuple[int, int]:
        """How many answers the engine is making, and how many questions wait for a place."""
        return self._places.load

    def drain(self) -> None:
        """Take no more questions; those that are being answered go on. Emergencies are answered."""
        self._places.draining = True

    @property
    def draining(self) -> bool:
        """Whether no more questions are taken."""
        return self._places.draining

    def cut(self) -> None:
        """End what is being answered, with an error; what was said of it is saved."""
        self._deadlines.cut()

    async def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Vectors of texts, with one place for all of them.

        Raises EngineError, and ConfigError where the engine has no embeddings.
        """
        with self._places.take(), self._deadlines.one() as deadline:
            return [await deadline.keep(self._vector(text)) for text in texts]

    async def _vector(self, text: str) -> Embedded:
        ids = [*self._engine.info.prefix, *await self._engine.tokenize(text, special=False)]
        return Embedded(await self._engine.embed(ids), len(ids))

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Event, None]:
        """Answer one question; closing the generator cancels it and saves what was said.

        Raises NotFound, SessionInUse, ContextLengthExceeded, StoreUnavailable, ConfigError (the
        chat template or the engine refuses the request) and EngineError. After an emergency
        message no failure of a later stage is raised: the message is the answer.
        """
        self._open += 1
        try:
            async with aclosing(self._answer(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._open -= 1

    async def _answer(self, request: AnswerRequest) -> AsyncGenerator[Event, None]:
        *earlier, new = request.messages
        draft = Draft(request, self._guard.check(new.content, earlier))
        # Before anything that can fail or take time; it is written while the question is saved.
        saving = asyncio.ensure_future(self._begin(draft))
        try:
            if draft.urgent:
                yield Guarded(draft.guard)
            conversation = await asyncio.shield(saving)
            if not draft.urgent:
                if request.session_id is not None:  # only now is known what was said before
                    draft.guard = self._guard.check(new.content, conversation.history)
                if draft.guard.level != "none":
                    yield Guarded(draft.guard)
            async with aclosing(self._ask_model(draft, conversation)) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception as error:
            if not draft.urgent:
                await self._give_up(draft, error)
                raise
            unforeseen = None if isinstance(error, HousecallError) else error
            _log.warning("the guard's message is the answer: %s", error, exc_info=unforeseen)
            draft.finish_reason = "guard"
        except (asyncio.CancelledError, GeneratorExit):
            draft.finish_reason = "cancelled"
            with anyio.CancelScope(shield=True):
                await asyncio.gather(saving, return_exceptions=True)
                await self._save(draft, "cancelled")
            raise
        yield Done(await self._finish(draft))  # the session is free again before anyone hears of it

    async def _begin(self, draft: Draft) -> Conversation:
        """The conversation, its new question saved if it belongs to a session."""
        if not draft.urgent:
            self._places.check()  # first, so that a refusal costs nothing
        request = draft.request
        given = [message for message in request.messages if message.role == "system"]
        if draft.session_id is None:
            if self.store.failing and not draft.urgent:  # else all is made before it can't be saved
                await to_thread.run_sync(self.store.check)
            conversation = Conversation.of(request.messages)
            return conversation if request.raw else self._with_system(conversation)
        begin_turn = partial(
            self.store.begin_turn,
            draft.session_id,
            request.messages[-1].content,
            new=request.session_id is None,
            system=given[0].content if given else None,
            model=self.model.name,
            owner=request.owner,
        )
        begun = await to_thread.run_sync(begin_turn)
        draft.turn = begun.turn
        return self._with_system(resumed(begun))

    def _with_system(self, conversation: Conversation) -> Conversation:
        """The model's own system prompt where none was given."""
        own = self.model.system_prompt
        if conversation.system or not own:
            return conversation
        return replace(conversation, system=(Message("system", own),))

    async def _ask_model(
        self, draft: Draft, conversation: Conversation
    ) -> AsyncGenerator[Token, None]:
        """The model's text; the draft keeps what came of it."""
        if self._settings.stops_after(draft.guard.level):
            draft.finish_reason = "guard"
            return
        with self._places.take(), self._deadlines.one() as deadline:
            window = await deadline.keep(self._window(draft, conversation))
            draft.window = window
            stream = self._engine.stream(
                window.prompt, draft.sampling(fixed=self._settings.deterministic)
            )
            said = [*conversation.history, draft.request.messages[-1]]
            reader = self._guard.answer_reader(draft.guard, said)
            async with aclosing(stream) as chunks:
                while chunk := await deadline.keep(anext(chunks, None)):
                    allowed = reader.read(chunk.text)
                    draft.add(replace(chunk, text=allowed))
                    if allowed or chunk.scores:
                        yield Token(allowed, chunk.scores)
                    if reader.stopped:
                        draft.finish_reason = "guard"
                        break
            if rest := reader.close():
                draft.add_text(rest)
                yield Token(rest)
            draft.guard = replace(draft.guard, output=reader.findings)

    async def _window(self, draft: Draft, conversation: Conversation) -> Window:
        """The window of a conversation; what left it for good is saved with its session."""
        policy = self._settings.long_chat if draft.session_id else "refuse"
        window = await choose_window(
            conversation,
            policy,
            n_ctx=self._engine.info.n_ctx,
            max_tokens=draft.request.sampling.max_tokens,
            encode=self._encode(raw=draft.request.raw),
        )
        rest = window.conversation
        if draft.session_id and draft.turn and rest.first_turn != conversation.first_turn:
            facts = [fact.as_dict() for fact in rest.facts]
            await to_thread.run_sync(self.store.leave, draft.session_id, rest.first_turn, facts)
        return window

    def _encode(self, *, raw: bool) -> Encode:
        if raw:
            return raw_encoder(self._engine.info.prefix, self._engine.tokenize)
        assert self._template is not None
        return self._known_tokens.encoder(self._template, self._engine.tokenize)

    async def _finish(self, draft: Draft) -> Answer:
        try:
            await self._save(draft, "complete")
        except HousecallError as error:
            if not draft.urgent:
                raise
            _log.warning("an emergency was answered, but the answer is not saved: %s", error)
        return draft.answer(self.model)

    async def _give_up(self, draft: Draft, error: Exception) -> None:
        """Save what was said of an answer that failed.

        A question that was refused, or that began a session whose id nobody was told, is taken
        back: asking again must not say it twice.
        """
        began_here = draft.request.session_id is None
        try:
            if draft.text or draft.session_id is None or draft.turn is None:
                if isinstance(error, Cut):
                    draft.finish_reason = "cancelled"
                await self._save(draft, "cancelled" if isinstance(error, Cut) else "error")
                return
            self.on_end(draft, "error")
            if isinstance(error, _REFUSALS) or began_here:
                await to_thread.run_sync(self.store.withdraw_turn, draft.session_id, draft.turn)
            else:
                await to_thread.run_sync(self.store.release, draft.session_id)
        except HousecallError as second:  # the first one says what happened
            _log.warning("an answer that failed is not saved: %s", second)

    async def _save(self, draft: Draft, status: Status) -> None:
        """Save the lineage and the text; of an answer that was cut off only if it has text."""
        self.on_end(draft, status)
        text = draft.text
        if text or status == "complete":
            record = draft.record(self.model, self._guard.version)
            save = partial(self.store.save_answer, record, text, status, draft.request.owner)
            await to_thread.run_sync(save)
        elif draft.session_id is not None and draft.turn is not None:
            await to_thread.run_sync(self.store.release, draft.session_id)


_REFUSALS = (ContextLengthExceeded, ConfigError, EngineBusy)
