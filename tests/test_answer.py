"""The order of an answer, and what is left of it when something goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from housecall.answer import Answerer
from housecall.engines.fake import FakeEngine
from housecall.errors import (
    ContextLengthExceeded,
    EngineBusy,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    HousecallError,
    NotFound,
    SessionInUse,
)
from housecall.events import Answer, AnswerRequest, Done, Event, Guarded, Token
from housecall.records import SavedSession
from housecall.sessions import SessionStore
from housecall.settings import Settings, load_settings
from housecall.types import Message, Sampling
from serving import MODEL, Held, ScriptedGuard

pytestmark = pytest.mark.anyio

CALL = "Call 112 now."


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Make a running answerer of an engine and settings."""
    made: list[Answerer] = []
    stores: list[SessionStore] = []

    async def make(engine: FakeEngine | None = None, **flags: object) -> Answerer:
        settings: Settings = load_settings(data_dir=tmp_path, **flags)
        stores.append(SessionStore(settings.database))
        answerer = Answerer(engine or FakeEngine(), ScriptedGuard(), MODEL, stores[-1], settings)
        await answerer.start()
        made.append(answerer)
        return answerer

    yield make
    for answerer in made:
        await answerer.close()
    for store in stores:
        store.close()


def chat(message: str, session_id: str | None = None, **sampling: Any) -> AnswerRequest:
    return AnswerRequest(
        kind="chat",
        request_id="req_1",
        messages=(Message("user", message),),
        sampling=Sampling(**sampling),
        session_id=session_id,
    )


def generate(message: str, **sampling: Any) -> AnswerRequest:
    return AnswerRequest(
        kind="generate",
        request_id="req_1",
        messages=(Message("user", message),),
        sampling=Sampling(**sampling),
    )


async def events_of(answerer: Answerer, request: AnswerRequest) -> list[Event]:
    return [event async for event in answerer.answer(request)]


async def ask(answerer: Answerer, request: AnswerRequest) -> Answer:
    *_, last = await events_of(answerer, request)
    assert isinstance(last, Done)
    return last.answer


def only_session(answerer: Answerer) -> SavedSession:
    [session] = answerer.store.sessions()
    return answerer.store.session(session.id)


def turns(session: SavedSession) -> list[tuple[str, str, str]]:
    return [(message.role, message.content, message.status) for message in session.messages]


async def test_tokens_add_up_to_the_answer(make: Any) -> None:
    answerer = await make(FakeEngine(["Drink a lot of water."]))
    events = await events_of(answerer, generate("I have a cold."))
    tokens = [event.text for event in events if isinstance(event, Token)]
    assert len(tokens) > 3
    assert isinstance(events[-1], Done)
    answer = events[-1].answer
    assert "".join(tokens) == answer.text == "Drink a lot of water."
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == 7
    assert answer.context is not None
    assert answer.usage.prompt_tokens == answer.context["prompt_tokens"]
    assert answer.session_id is None
    assert answerer.store.sessions() == []


async def test_the_model_sees_its_own_system_prompt_unless_told_otherwise(make: Any) -> None:
    engine = FakeEngine()
    answerer = await make(engine)
    await ask(answerer, generate("Hello"))
    own = AnswerRequest(
        kind="openai",
        request_id="r",
        messages=(Message("system", "Be brief."), Message("user", "Hello")),
    )
    await ask(answerer, own)
    assert "system\nBe kind.<|im_end|>" in engine.requests[0].text
    assert "Be kind" not in engine.requests[1].text
    assert "system\nBe brief.<|im_end|>" in engine.requests[1].text


async def test_a_chat_goes_on_where_it_was(make: Any) -> None:
    engine = FakeEngine(["Since when?", "Rest."])
    answerer = await make(engine)
    first = await ask(answerer, chat("I cough."))
    second = await ask(answerer, chat("Since Monday.", first.session_id))
    assert (first.turn, second.turn) == (1, 2)
    assert second.session_id == first.session_id
    assert engine.requests[1].text.endswith(
        "user\nI cough.<|im_end|>\n<|im_start|>assistant\nSince when?<|im_end|>\n"
        "<|im_start|>user\nSince Monday.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answerer._guard.read[-1] == (
        "Since Monday.",
        [
            Message("system", "Be kind."),
            Message("user", "I cough."),
            Message("assistant", "Since when?"),
        ],
    )


async def test_a_sessions_system_prompt_stays(make: Any) -> None:
    engine = FakeEngine()
    answerer = await make(engine)
    request = AnswerRequest(
        kind="chat",
        request_id="r",
        messages=(Message("system", "Speak like a nurse."), Message("user", "Hello")),
    )
    first = await ask(answerer, request)
    await ask(answerer, chat("And now?", first.session_id))
    assert "system\nSpeak like a nurse.<|im_end|>" in engine.requests[1].text


async def test_old_turns_leave_a_long_chat(make: Any) -> None:
    answerer = await make(FakeEngine(["ok"], n_ctx=120))
    session_id = None
    for i in range(10):
        answer = await ask(answerer, chat(f"This is message number {i}.", session_id, max_tokens=8))
        session_id = answer.session_id
    assert answer.context["turns_total"] == 10
    assert 1 < answer.context["turns_in_window"] < 10
    assert answer.context["prompt_tokens"] + 8 <= 120
    assert len(only_session(answerer).messages) == 20


async def test_the_lineage_of_an_answer_is_saved_without_its_words(make: Any) -> None:
    answerer = await make(FakeEngine(["Lie down."]))
    request = generate("My chest pain is back.", seed=7)
    answer = await ask(answerer, request)
    record = answerer.store.answer(answer.id)
    assert answer.id == request.answer_id
    assert record.text_sha256 == hashlib.sha256(answer.text.encode()).hexdigest()
    assert record.model == {
        "name": "demo",
        "format": "gguf-q4_k_m",
        "sha256": "ab" * 32,
        "run": "demo",
        "gated": True,
    }
    assert [entry["kind"] for entry in record.lineage] == ["variant", "dataset"]
    assert record.guard["matches"] == [
        {"rule": "chest_pain", "start": 3, "end": 13, "assertion": "present"}
    ]
    assert (record.guard_version, record.sampling["seed"]) == ("scripted-1", 7)
    assert "Lie down" not in record.model_dump_json()


async def test_an_emergency_message_comes_before_every_token(make: Any) -> None:
    answerer = await make(FakeEngine(["Sit down."]), after_emergency="continue")
    events = await events_of(answerer, chat("I have chest pain"))
    assert isinstance(events[0], Guarded)
    assert events[0].guard.message == CALL
    assert [type(event) for event in events[1:]] == [Token] * 3 + [Done]
    assert events[-1].answer.text == f"{CALL}\n\nSit down."
    assert events[-1].answer.finish_reason == "stop"
    assert turns(only_session(answerer))[1] == ("assistant", f"{CALL}\n\nSit down.", "complete")


@pytest.mark.parametrize(
    ("message", "flags", "asked"),
    [
        ("I have chest pain", {}, False),
        ("I have chest pain", {"after_emergency": "continue"}, True),
        ("I see no way out", {}, False),
        ("I see no way out", {"after_crisis": "continue"}, True),
    ],
)
async def test_the_settings_say_whether_the_model_adds_something(
    make: Any, message: str, flags: dict[str, str], asked: bool
) -> None:
    engine = FakeEngine(["More."])
    answer = await ask(await make(engine, **flags), generate(message))
    assert bool(engine.requests) == asked
    assert answer.text.endswith("More.") == asked
    assert answer.finish_reason == ("stop" if asked else "guard")


async def test_an_emergency_is_answered_with_the_engine_down(make: Any) -> None:
    engine = FakeEngine()
    answerer = await make(engine)
    engine.available = False
    answer = await ask(answerer, chat("I have chest pain"))
    assert (answer.text, answer.finish_reason) == (CALL, "guard")
    assert turns(only_session(answerer)) == [
        ("user", "I have chest pain", "complete"),
        ("assistant", CALL, "complete"),
    ]
    with pytest.raises(EngineUnavailable):
        await ask(answerer, chat("I have a cold"))


async def test_an_emergency_is_answered_before_the_model_is_loaded(
    make: Any, tmp_path: Path
) -> None:
    running = await make()
    loading = Answerer(FakeEngine(), ScriptedGuard(), running.model, running.store, load_settings())
    assert not await loading.ready()
    assert (await ask(loading, generate("chest pain"))).text == CALL
    with pytest.raises(EngineUnavailable, match="still loading"):
        await ask(loading, generate("Hello"))


async def test_an_emergency_is_answered_when_it_does_not_fit_the_window(make: Any) -> None:
    answerer = await make(FakeEngine(n_ctx=64))
    answer = await ask(answerer, generate("chest pain " * 100))
    assert (answer.text, answer.finish_reason) == (CALL, "guard")
    with pytest.raises(ContextLengthExceeded):
        await ask(answerer, generate("headache " * 100))


async def test_an_emergency_is_answered_when_it_can_not_be_saved(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = await make()

    def fail(*_: object, **__: object) -> None:
        raise HousecallError("the database failed: disk full")

    monkeypatch.setattr(answerer.store, "begin_turn", fail)
    monkeypatch.setattr(answerer.store, "save_answer", fail)
    answer = await ask(answerer, chat("I have chest pain"))
    assert answer.text == CALL
    with pytest.raises(HousecallError, match="disk full"):
        await ask(answerer, chat("I have a cold"))


async def test_an_engine_that_dies_leaves_what_was_said(make: Any) -> None:
    engine = FakeEngine(["one two three four"], fail_after=2, failure=EngineError("it died"))
    answerer = await make(engine)
    with pytest.raises(EngineError, match="it died"):
        await ask(answerer, chat("Hello"))
    session = only_session(answerer)
    assert turns(session) == [("user", "Hello", "complete"), ("assistant", "one two", "error")]
    record = answerer.store.answer(session.messages[1].answer_id)
    assert record.finish_reason is None
    assert record.usage["completion_tokens"] == 2


async def test_a_question_without_an_answer_is_asked_again(make: Any) -> None:
    engine = FakeEngine()
    answerer = await make(engine)
    session_id = (await ask(answerer, chat("Hello"))).session_id
    engine.available = False
    with pytest.raises(EngineUnavailable):
        await ask(answerer, chat("I am pregnant.", session_id))
    engine.available = True
    answer = await ask(answerer, chat("May I take it?", session_id))
    assert "user\nI am pregnant.\n\nMay I take it?<|im_end|>" in engine.requests[1].text
    assert answer.turn == 3


async def test_a_question_that_is_sent_again_is_the_same_turn(make: Any) -> None:
    engine = FakeEngine()
    answerer = await make(engine)
    session_id = (await ask(answerer, chat("Hello"))).session_id
    engine.available = False
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await ask(answerer, chat("I cough.", session_id))
    engine.available = True
    assert (await ask(answerer, chat("I cough.", session_id))).turn == 2
    assert [content for _, content, _ in turns(only_session(answerer))] == [
        *("Hello", "you said: Hello"),
        *("I cough.", "you said: I cough."),
    ]


async def test_a_failed_first_question_leaves_no_session_behind(make: Any) -> None:
    engine = FakeEngine(n_ctx=64)
    answerer = await make(engine)
    with pytest.raises(ContextLengthExceeded):
        await ask(answerer, chat("headache " * 100))
    engine.available = False
    with pytest.raises(EngineUnavailable):
        await ask(answerer, chat("Hello"))
    assert answerer.store.sessions() == []


async def test_a_refused_question_leaves_its_session_as_it_was(make: Any) -> None:
    answerer = await make(FakeEngine(n_ctx=64))
    session_id = (await ask(answerer, chat("Hello"))).session_id
    with pytest.raises(ContextLengthExceeded):
        await ask(answerer, chat("headache " * 100, session_id))
    assert len(only_session(answerer).messages) == 2
    assert (await ask(answerer, chat("And?", session_id))).turn == 2


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_cancelled_answer_is_saved_as_far_as_it_came(make: Any, how: str) -> None:
    engine = FakeEngine(["one two three four five six"], delay=0.02)
    answerer = await make(engine)
    seen = asyncio.Event()

    async def listen() -> None:
        async with aclosing(answerer.answer(chat("Hello"))) as events:
            count = 0
            async for _ in events:
                count += 1
                if count == 2:
                    seen.set()
                    if how == "closed":
                        return

    task = asyncio.create_task(listen())
    await seen.wait()
    if how == "cancelled":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    session = only_session(answerer)
    assert turns(session)[1] == ("assistant", "one two", "cancelled")
    assert answerer.store.answer(session.messages[1].answer_id).finish_reason == "cancelled"
    assert engine.active == 0
    assert (await ask(answerer, chat("Go on.", session.id))).turn == 2


async def test_a_session_answers_one_question_at_a_time(make: Any) -> None:
    engine = Held(held=False)
    answerer = await make(engine)
    session_id = (await ask(answerer, chat("Hello"))).session_id
    engine.held = True
    first = asyncio.create_task(ask(answerer, chat("one two three", session_id)))
    while not engine.active:
        await asyncio.sleep(0.001)
    with pytest.raises(SessionInUse, match=session_id):
        await ask(answerer, chat("me too", session_id))
    engine.held = False
    assert (await first).turn == 2
    assert (await ask(answerer, chat("now", session_id))).turn == 3


async def test_the_session_is_free_when_its_answer_is_heard(make: Any) -> None:
    answerer = await make()
    async with aclosing(answerer.answer(chat("Hello"))) as events:
        async for event in events:
            if isinstance(event, Done):
                assert (await ask(answerer, chat("And?", event.answer.session_id))).turn == 2


async def test_an_unknown_session_is_not_made(make: Any) -> None:
    answerer = await make()
    with pytest.raises(NotFound):
        await ask(answerer, chat("Hello", "ses_nope"))
    assert answerer.store.sessions() == []


async def test_too_many_questions_at_once_are_refused(make: Any) -> None:
    engine = Held(parallel=1)
    answerer = await make(engine, queue=1)
    waiting = [asyncio.create_task(ask(answerer, generate("a b c d"))) for _ in range(2)]
    while answerer.load != (1, 1):
        await asyncio.sleep(0.001)
    with pytest.raises(EngineBusy):
        await ask(answerer, generate("me too"))
    assert (await ask(answerer, generate("chest pain"))).finish_reason == "guard"
    engine.held = False
    assert [answer.finish_reason for answer in await asyncio.gather(*waiting)] == ["stop"] * 2
    assert (await ask(answerer, generate("now"))).finish_reason == "stop"


async def test_an_answer_that_takes_too_long_is_ended(make: Any) -> None:
    engine = Held(["a b c d e f g h"])
    answerer = await make(engine, request_timeout=1)
    with pytest.raises(EngineTimeout, match="within 1 s"):
        await ask(answerer, chat("Hello"))
    assert engine.active == 0
    assert turns(only_session(answerer))[1][2] == "error"


@pytest.mark.parametrize(("deterministic", "seed"), [(True, 0), (False, None)])
async def test_a_deterministic_server_fixes_the_seed(
    make: Any, deterministic: bool, seed: int | None
) -> None:
    engine = FakeEngine()
    answerer = await make(engine, deterministic=deterministic)
    await ask(answerer, generate("Hello"))
    await ask(answerer, generate("Hello", seed=5))
    assert [request.sampling.seed for request in engine.requests] == [seed, 5]


async def test_timings_are_of_the_models_tokens(make: Any) -> None:
    answerer = await make(FakeEngine(["one two three four"], delay=0.02))
    timings = (await ask(answerer, generate("Hello"))).timings
    assert 20 <= timings.ttft_ms <= timings.total_ms
    assert 0 < timings.tokens_per_second <= 50
    silent = (await ask(answerer, generate("no way out"))).timings
    assert (silent.ttft_ms, silent.tokens_per_second) == (None, None)
