"""What the scripted engine offers to other tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from housecall.engines.base import complete
from housecall.engines.fake import FakeEngine, WordTokenizer
from housecall.errors import EngineTimeout, EngineUnavailable
from housecall.types import Sampling

pytestmark = pytest.mark.anyio

TURN = "<|im_start|>user\nIt <|im_end|>\n<|im_start|>assistant\n"


async def started(engine: FakeEngine) -> FakeEngine:
    await engine.start()
    return engine


@given(st.text(), st.booleans())
def test_the_tokenizer_is_reversible(text: str, special: bool) -> None:
    tokenizer = WordTokenizer()
    assert tokenizer.decode(tokenizer.encode(text, special=special)) == text


async def test_replies_come_in_turn_and_requests_are_kept() -> None:
    engine = await started(FakeEngine(["one", "two"]))
    prompt = await engine.tokenize(TURN, special=True)
    answers = [(await complete(engine, prompt, Sampling(seed=i))).text for i in range(3)]
    assert answers == ["one", "two", "one"]
    assert [request.sampling.seed for request in engine.requests] == [0, 1, 2]
    assert engine.requests[0].text == TURN


async def test_it_echoes_without_a_script() -> None:
    engine = await started(FakeEngine())
    prompt = await engine.tokenize("<|im_start|>user\nMy knee hurts<|im_end|>\n", special=True)
    assert (await complete(engine, prompt, Sampling())).text == "you said: My knee hurts"


async def test_a_failure_comes_after_so_many_tokens() -> None:
    failure = EngineTimeout("too slow")
    engine = await started(FakeEngine(lambda prompt: "a b c d", fail_after=2, failure=failure))
    stream = engine.stream([1], Sampling())
    assert [(await anext(stream)).text for _ in range(2)] == ["a", " b"]
    with pytest.raises(EngineTimeout, match="too slow"):
        await anext(stream)
    assert engine.active == 0


async def test_it_can_be_taken_down() -> None:
    engine = await started(FakeEngine())
    engine.available = False
    assert not await engine.ready()
    with pytest.raises(EngineUnavailable):
        await engine.tokenize("hi", special=False)
