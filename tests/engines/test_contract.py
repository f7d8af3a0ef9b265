"""One contract for every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from math import hypot
from pathlib import Path

import pytest

from housecall.engines.base import Engine, complete
from housecall.engines.fake import FakeEngine
from housecall.errors import ConfigError, ContextLengthExceeded, EngineUnavailable
from housecall.types import Chunk, Sampling

pytestmark = pytest.mark.anyio

TURN = "<|im_start|>user\nSay something about spring.<|im_end|>\n<|im_start|>assistant\n"
REPLY = "Spring is here, and the garden 🌷 is full of flowers. " * 8
N_CTX = 256
GREEDY = Sampling(temperature=0, max_tokens=24)


def build(name: str, request: pytest.FixtureRequest) -> Engine:
    if name == "llama":
        from housecall.engines.llama import LlamaEngine

        model: Path = request.getfixturevalue("gguf")
        # One thread: two that wait for each other crawl while something else keeps a core busy.
        return LlamaEngine(model, n_ctx=N_CTX, parallel=2, threads=1)
    if name == "hf":
        folder: Path = request.getfixturevalue("tiny_folder")
        from housecall.engines.hf import HfEngine

        return HfEngine(folder, n_ctx=N_CTX)
    return FakeEngine([REPLY], n_ctx=N_CTX, parallel=2, delay=0.001)


@pytest.fixture(params=["fake", "llama", "hf"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine = build(request.param, request)
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
async def prompt(engine: Engine) -> list[int]:
    return await engine.tokenize(TURN, special=True)


@pytest.mark.parametrize("name", ["fake", "llama", "hf"])
async def test_it_is_ready_between_start_and_close_only(
    name: str, request: pytest.FixtureRequest
) -> None:
    engine = build(name, request)
    assert not await engine.ready()
    await engine.start()
    async with asyncio.timeout(30):  # a busy machine may be late once for the second it is given
        while not await engine.ready():
            await asyncio.sleep(0.01)
    await engine.close()
    await engine.close()
    assert not await engine.ready()
    with pytest.raises(EngineUnavailable):
        await complete(engine, [5], GREEDY)


async def test_info_names_the_template_and_the_ends_of_a_generation(engine: Engine) -> None:
    info = engine.info
    assert "<|im_start|>" in info.chat_template
    assert (info.bos_token, info.eos_token) == ("<|im_start|>", "<|im_end|>")
    ends = [*await engine.tokenize("<|im_end|>", special=True)]
    ends += await engine.tokenize("<|endoftext|>", special=True)
    assert info.eog_ids == set(ends)
    assert info.n_ctx == N_CTX


async def test_control_tokens_are_control_only_when_asked_for(engine: Engine) -> None:
    control = await engine.tokenize("<|im_end|>", special=True)
    plain = await engine.tokenize("<|im_end|>", special=False)
    assert len(control) == 1
    assert len(plain) > 1
    assert not set(plain) & engine.info.eog_ids


async def test_tokens_of_template_and_content_join(engine: Engine) -> None:
    """No token is put in front of a text, at its end, or between two of them."""
    parts = ["<|im_start|>", "user\nIt hurts.", "<|im_end|>", "\n"]
    joined = [i for part in parts for i in await engine.tokenize(part, special=True)]
    assert joined == await engine.tokenize("".join(parts), special=True)


async def test_greedy_answers_repeat(engine: Engine, prompt: list[int]) -> None:
    first = await complete(engine, prompt, GREEDY)
    assert first.text
    assert (await complete(engine, prompt, GREEDY)).ids == first.ids


async def test_max_tokens_ends_an_answer_as_length(engine: Engine, prompt: list[int]) -> None:
    answer = await complete(engine, prompt, Sampling(temperature=0, max_tokens=5))
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.usage.prompt_tokens == len(prompt)


async def test_the_window_ends_an_answer_as_length(engine: Engine, prompt: list[int]) -> None:
    long = (prompt * N_CTX)[: N_CTX - 3]
    answer = await complete(engine, long, Sampling(temperature=0, max_tokens=100))
    assert answer.usage.completion_tokens <= 4
    assert answer.usage.prompt_tokens == N_CTX - 3


async def test_a_stop_string_over_several_chunks_is_not_shown(
    engine: Engine, prompt: list[int]
) -> None:
    whole = (await complete(engine, prompt, GREEDY)).text
    stop = whole[len(whole) // 2 :][:4]
    answer = await complete(
        engine, prompt, Sampling(temperature=0, max_tokens=24, stop=("never there", stop))
    )
    assert answer.finish_reason == "stop"
    assert answer.text == whole[: whole.index(stop)]


async def test_only_the_last_chunk_carries_reason_and_usage(
    engine: Engine, prompt: list[int]
) -> None:
    chunks = await collect(engine, prompt, GREEDY)
    assert len(chunks) > 5
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].finish_reason is not None
    assert chunks[-1].usage is not None
    whole = await complete(engine, prompt, GREEDY)
    assert "".join(chunk.text for chunk in chunks) == whole.text


async def test_a_prompt_that_fills_the_window_is_refused(engine: Engine, prompt: list[int]) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        await complete(engine, (prompt * N_CTX)[:N_CTX], GREEDY)
    assert (refused.value.n_prompt_tokens, refused.value.n_ctx) == (N_CTX, N_CTX)
    assert (await complete(engine, prompt, GREEDY)).text


async def test_closed_streams_free_their_slots(engine: Engine, prompt: list[int]) -> None:
    for _ in range(2 * engine.info.parallel):
        async with aclosing(engine.stream(prompt, Sampling(max_tokens=200))) as stream:
            assert await anext(stream)
    # A slot that is never freed is waited for in vain; test_llama.py measures how soon it is.
    async with asyncio.timeout(60):
        assert (await complete(engine, prompt, GREEDY)).text


async def test_streams_at_once_are_whole(engine: Engine, prompt: list[int]) -> None:
    answers = await asyncio.gather(
        *(complete(engine, prompt, Sampling(seed=i, max_tokens=16)) for i in range(6))
    )
    for answer in answers:
        assert answer.usage.prompt_tokens == len(prompt)
        assert answer.finish_reason == "stop" or answer.usage.completion_tokens == 16


async def test_scores_tell_what_the_text_is_made_of(engine: Engine, prompt: list[int]) -> None:
    if engine.info.name == "hf":
        with pytest.raises(ConfigError, match="top_logprobs"):
            await complete(engine, prompt, Sampling(top_logprobs=1))
        return
    sampling = Sampling(temperature=0, max_tokens=12, top_logprobs=3)
    answer = await complete(engine, prompt, sampling)
    assert "".join(score.text for score in answer.scores) == answer.text
    for score in answer.scores:
        assert score.data == score.text.encode()
        assert len(score.top) == 3
        assert score.logprob == score.top[0].logprob < 0  # greedy takes the likeliest
        assert list(score.top) == sorted(score.top, key=lambda other: -other.logprob)
    alone = await complete(engine, prompt, Sampling(temperature=0, max_tokens=12, top_logprobs=0))
    assert [score.top for score in alone.scores] == [()] * len(answer.scores)
    assert (await complete(engine, prompt, GREEDY)).scores == ()


async def test_a_text_is_a_vector_of_length_1(engine: Engine) -> None:
    texts = ["I have a headache.", "My head hurts.", "The train leaves at noon. " * 30]
    ids = [await engine.tokenize(text, special=False) for text in texts]
    ids = [text[: engine.info.n_ctx] for text in ids]
    vectors = [await engine.embed(text) for text in ids]
    assert all(hypot(*vector) == pytest.approx(1) for vector in vectors)
    assert len({len(vector) for vector in vectors}) == 1
    assert await engine.embed(ids[0]) == pytest.approx(vectors[0], abs=1e-4)
    near, far = (
        sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:]
    )
    assert near > far or engine.info.name != "llama"  # the others have learned nothing


async def test_text_that_is_not_unicode_is_taken(engine: Engine) -> None:
    assert await engine.tokenize("half a pair: \ud83d", special=False)


async def collect(engine: Engine, prompt: list[int], sampling: Sampling) -> list[Chunk]:
    return [chunk async for chunk in engine.stream(prompt, sampling)]
