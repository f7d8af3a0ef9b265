"""Our conversion to GGUF against llama.cpp's own converter, whose results are stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import golden_files
from gguf_summary import summarise
from housecall.gguf.files import write_gguf
from housecall.gguf.vocabulary import gguf_vocabulary
from tiny_models import (
    make_tiny_biased,
    make_tiny_llama3,
    make_tiny_mistral,
    make_tiny_qwen2,
)


def without_order(summary: dict[str, Any]) -> Any:
    return json.loads(json.dumps(summary))


def test_byte_level_tokenizer(tiny_llama: Path, tmp_path: Path, convert: Any) -> None:
    """GQA, an output matrix of its own, and more rows than tokens."""
    found = summarise(convert(tiny_llama, tmp_path / "f16.gguf"))
    assert without_order(found) == golden_files.read("official-llama.json")


def test_sentencepiece_tokenizer(tiny_sentencepiece: Path, tmp_path: Path, convert: Any) -> None:
    found = summarise(convert(tiny_sentencepiece, tmp_path / "f16.gguf"))
    assert without_order(found) == golden_files.read("official-sentencepiece.json")


@pytest.mark.parametrize(
    "make", [make_tiny_qwen2, make_tiny_llama3, make_tiny_mistral, make_tiny_biased]
)
def test_the_family(make: Callable[[Path], Path], tmp_path: Path, convert: Any) -> None:
    """Qwen2 with YaRN, Llama 3 with its rotary scaling, Mistral, and a Llama with biases."""
    found = summarise(convert(make(tmp_path), tmp_path / "f16.gguf"))
    name = make.__name__.removeprefix("make_tiny_")
    assert without_order(found) == golden_files.read(f"official-{name}.json")


@pytest.mark.slow
def test_smollm2(smollm2: Path, tmp_path: Path, convert: Any) -> None:
    """All 272 tensors and all keys of a real model with tied embeddings."""
    found = summarise(convert(smollm2, tmp_path / "f16.gguf"))
    assert without_order(found) == golden_files.read("official-smollm2.json")


ADDED = [("<|im_end|>", False), ("<my\u2581tok>", False), ("[X]", True)]


def with_added_tokens(source: Path, folder: Path) -> Path:
    """The tokenizer as fine-tuned models have it: tokens added, BOS from the post-processor."""
    shutil.copytree(source, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": 32_000 + i, "content": text, "special": special, **plain}
        for i, (text, special) in enumerate(ADDED)
    ]
    bos, a, b = (
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, a],
        "pair": [bos, a, {"SpecialToken": {"id": "<s>", "type_id": 1}}, b],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    del settings["add_bos_token"], settings["add_eos_token"]
    settings["added_tokens_decoder"] = {
        str(token["id"]): {k: v for k, v in token.items() if k != "id"}
        for token in tokenizer["added_tokens"]
    }
    settings |= {"add_prefix_space": True, "pad_token": "[X]"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def test_added_tokens(
    tiny_sentencepiece: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = with_added_tokens(tiny_sentencepiece, tmp_path / "added")
    fields = {"general.architecture": "llama", **gguf_vocabulary(folder, 32_010)}
    write_gguf(tmp_path / "vocabulary.gguf", fields, [], [])
    found = summarise(tmp_path / "vocabulary.gguf")["keys"]
    assert found == golden_files.read("official-added-tokens.json")["keys"]
    assert capfd.readouterr().err == ""


def test_a_token_without_a_row_is_left_out(tiny_sentencepiece: Path, tmp_path: Path) -> None:
    folder = with_added_tokens(tiny_sentencepiece, tmp_path / "added")
    keys = gguf_vocabulary(folder, 32_001)
    assert keys["tokenizer.ggml.tokens"][-1] == "<|im_end|>"
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.scores"]) == 32_001
