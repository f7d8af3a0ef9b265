"""What only the engine of transformers does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the engine hf needs torch")
pytest.importorskip("transformers", reason="the engine hf needs transformers")

import torch

from housecall.engines.base import complete
from housecall.engines.hf import HfEngine
from housecall.engines.hf_generate import TextDecoder, choose
from housecall.errors import ConfigError, EngineError, EngineUnavailable
from housecall.types import Sampling

pytestmark = pytest.mark.anyio

LOGITS = [1.0, 4.0, 3.9, 0.0, -2.0]


@pytest.fixture
async def engine(tiny_folder: Path) -> AsyncIterator[HfEngine]:
    engine = HfEngine(tiny_folder, n_ctx=256)
    await engine.start()
    yield engine
    await engine.close()


def chosen(sampling: Sampling, recent: tuple[int, ...] = ()) -> set[int]:
    generator = torch.Generator().manual_seed(1)
    return {choose(torch.tensor(LOGITS), recent, sampling, generator) for _ in range(300)}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0), {1}),
        (Sampling(temperature=9, top_k=2, top_p=1, min_p=0), {1, 2}),
        (Sampling(temperature=9, top_k=0, top_p=0.6, min_p=0), {1, 2}),
        (Sampling(temperature=9, top_k=0, top_p=0.1, min_p=0), {1}),
        (Sampling(temperature=9, top_k=0, top_p=1, min_p=0.03), {0, 1, 2}),
        (Sampling(temperature=9, top_k=0, top_p=1, min_p=0), {0, 1, 2, 3, 4}),
    ],
    ids=["greedy", "top_k", "top_p", "top_p keeps one", "min_p", "everything"],
)
def test_sampling_keeps_what_it_says(sampling: Sampling, expected: set[int]) -> None:
    assert chosen(sampling) == expected


def test_a_repeated_token_is_penalised() -> None:
    assert chosen(Sampling(temperature=0, repeat_penalty=1.2), recent=(1,)) == {2}


async def test_a_seed_repeats_a_sampled_answer(engine: HfEngine) -> None:
    sampling = Sampling(temperature=2, top_k=0, top_p=1, min_p=0, max_tokens=8, seed=11)
    first = await complete(engine, [5, 6, 7], sampling)
    assert (await complete(engine, [5, 6, 7], sampling)).ids == first.ids


async def test_characters_of_several_tokens_come_whole(engine: HfEngine) -> None:
    text = "né 😀!"
    ids = await engine.tokenize(text, special=False)
    assert len(ids) == len(text.encode())
    decoder = TextDecoder(engine._tokenizer, [1, 50])
    assert [piece for piece in map(decoder.push, ids) if piece] == list(text)


async def test_bytes_that_are_no_character_do_not_stop_the_text(engine: HfEngine) -> None:
    stray = (await engine.tokenize("😀", special=False))[0]
    letters = await engine.tokenize("abcdef", special=False)
    decoder = TextDecoder(engine._tokenizer, [])
    assert "".join(map(decoder.push, [stray, *letters])).endswith("abcdef")


async def test_a_json_schema_is_refused(engine: HfEngine) -> None:
    with pytest.raises(ConfigError, match="json_schema"):
        await complete(engine, [5], Sampling(json_schema={"type": "object"}))


async def test_closing_ends_a_running_stream(engine: HfEngine) -> None:
    async with aclosing(engine.stream([5, 6, 7], Sampling(max_tokens=250))) as stream:
        await anext(stream)
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineUnavailable):
            async for _ in stream:
                pass
        await closing


async def test_a_token_outside_the_vocabulary_is_an_engine_error(engine: HfEngine) -> None:
    with pytest.raises(EngineError):
        await complete(engine, [10**6], Sampling(max_tokens=1))


async def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    engine = HfEngine(tmp_path)
    with pytest.raises(EngineError, match="no transformers model"):
        await engine.start()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(EngineError, match="could not load"):
        await engine.start()
