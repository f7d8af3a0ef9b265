"""Parity for every kind of model and tokenizer that can be converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece", reason="needs the extra train")
pytest.importorskip("mistral_common", reason="needs a tokenizer.model")

from housecall.causal_lm import load_config
from housecall.checks.diagnosis import explain
from housecall.checks.parity import Parity
from housecall.config import ParityConfig
from housecall.gguf.convert import convert, plan
from housecall.gguf.llama import hyperparameters
from housecall.gguf.mixture import file_type
from housecall.gguf.vocabulary import gguf_vocabulary
from housecall.weights import Weights
from tiny_models import (
    make_tiny_biased,
    make_tiny_llama3,
    make_tiny_mistral,
    make_tiny_qwen2,
    make_tiny_sentencepiece,
)


@pytest.mark.parametrize(
    "make",
    [
        make_tiny_sentencepiece,
        make_tiny_qwen2,
        make_tiny_llama3,
        make_tiny_mistral,
        make_tiny_biased,
    ],
)
def test_the_engine_is_the_model(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    config = load_config(folder)
    weights = Weights(folder, "np")
    fields = {
        "general.type": "model",
        "general.file_type": int(file_type("gguf-f16")),
        "general.quantization_version": 2,
        **hyperparameters(config),
        **gguf_vocabulary(folder, int(config["vocab_size"])),
    }
    file = tmp_path / "model.gguf"
    convert(weights, config, plan(weights, config, "gguf-f16"), fields, file)
    found = Parity(ParityConfig(answers=4, answer_tokens=32), folder).examine(file, exact=True)
    assert found["failures"] == []
    assert found["greedy"]["tokens"] > 4
    assert explain(file, folder) == []
