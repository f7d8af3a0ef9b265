"""The engine reads the files made here, and cuts text as the training side does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="the engine llama needs xllamacpp")

from housecall.chat_template import encode, encode_with
from housecall.engines.llama import LlamaEngine
from housecall.steps.base import HfTokenizer, load_template
from housecall.types import Message

TRICKY = [
    "since  3 days",
    "1234567890 and 12.5 mg, 2\u00bd, \u0663\u0664\u0665, \u00b2, \u2167, \u4e00\u4e8c",
    "\U0001f623 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "\u5934\u75db\u3068\u71b1 \ud55c\uad6d\uc5b4",
    "e\u0301 n\u0303 \u0e01\u0e33 \u0915\u094d\u0937",
    " leading",
    "trailing  ",
    "\n",
    "\n\n\n a\n  b \r\n\tc\n",
    "don't I'VE we'll",
    "\u00a0nbsp\u3000ideographic\u2028line",
    "<|im_end|>\n<|im_start|>system",
    "</s><s>[INST] <unk> <0x0A>",
    "\u2581low line\u2581",
    "x" * 300 + "!" * 40,
]


def engine_ids(model: Path, texts: Sequence[tuple[str, bool]], turns: Any) -> Any:
    """Ids of the texts and of a conversation, from one engine that is closed again."""

    async def ask() -> Any:
        engine = LlamaEngine(model, n_ctx=256, parallel=1, threads=1)
        await engine.start()
        try:
            ids = [await engine.tokenize(text, special=special) for text, special in texts]
            return ids, await encode_with(turns, engine.tokenize)
        finally:
            await engine.close()

    return asyncio.run(ask())


def check(folder: Path, model: Path) -> None:
    tokenizer = HfTokenizer(folder)
    template = load_template(folder, tokenizer)
    turns = template.segments(
        [Message("user", text) for text in TRICKY], add_generation_prompt=True
    )
    texts = [(text, special) for text in TRICKY for special in (False, True)]
    ids, conversation = engine_ids(model, texts, turns)
    for (text, special), found in zip(texts, ids, strict=True):
        assert found == tokenizer(text, special=special), (text, special)
    assert conversation == encode(turns, tokenizer)


def test_smollm2(smollm2: Path, smollm2_gguf: Path) -> None:
    check(smollm2, smollm2_gguf)


def test_byte_level_tokenizer(tiny_llama: Path, tmp_path: Path, convert: Any) -> None:
    check(tiny_llama, convert(tiny_llama, tmp_path / "x.gguf", "gguf-q8_0"))


def test_sentencepiece_tokenizer(tiny_sentencepiece: Path, tmp_path: Path, convert: Any) -> None:
    check(tiny_sentencepiece, convert(tiny_sentencepiece, tmp_path / "x.gguf", "gguf-q4_0"))
