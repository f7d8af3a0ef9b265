"""Moving quantised weights off their grid: the same function, and what is learnt stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from housecall.config import BaseConfig
from housecall.gguf import spread as module
from housecall.gguf.files import GgufFile, TensorInfo, pack, write_gguf
from housecall.gguf.spread import spread
from housecall.steps import fetch

CONFIG = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}


def through(kind: Type, weights: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    """Quantised and read back, with a matrix that weighs all columns alike."""
    file = folder / "x.gguf"
    info = TensorInfo("x", weights.shape, kind)
    packed = pack(weights, kind, np.ones(weights.shape[1], dtype=np.float32))
    write_gguf(file, {"general.architecture": "llama"}, [info], [packed])
    return GgufFile(file).tensor("x")


def kept(before: NDArray[np.float32], learnt: NDArray[np.float32], folder: Path) -> float:
    """How much of what was learnt is left in Q5_1: 1 all, 0 nothing."""
    error = through(Type.Q5_1, before + learnt, folder) - (before + learnt)
    return float(1 + (error * learnt).sum() / (learnt * learnt).sum())


def test_a_finer_grid_rounds_learning_away_unless_weights_are_spread(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    before = through(Type.Q4_1, random.randn(64, 512).astype(np.float32), tmp_path)
    learnt = (random.randn(64, 2) @ random.randn(2, 512) / 500).astype(np.float32)
    moved = [spread("blk.0.ffn_up.weight", w, CONFIG) for w in (before, before + learnt)]
    assert kept(before, learnt, tmp_path) < 0.3
    assert kept(moved[0], moved[1] - moved[0], tmp_path) > 0.6


def test_the_model_computes_the_same(
    tiny_llama: Path, tmp_path: Path, convert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an output matrix of its own; the real model, whose is tied, is in test_import."""
    import torch

    from housecall.causal_lm import load_model

    file = convert(tiny_llama, tmp_path / "q8_0.gguf", "gguf-q8_0")
    config = BaseConfig(source=str(file))
    base = fetch.run(config, tmp_path / "spread")
    assert base.metrics["moved_off_grid"]
    monkeypatch.setattr(module, "_LARGEST", 0.0)
    plain = fetch.run(config, tmp_path / "plain")
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        moved, expected = (
            load_model(artifact.path, dtype=torch.float32)(ids).logits for artifact in (base, plain)
        )
    assert (moved - expected).abs().max() < 0.01 * expected.abs().max()
    assert base.file("model.safetensors")["sha256"] != plain.file("model.safetensors")["sha256"]


def test_weights_that_were_not_quantised_stay(
    tiny_llama: Path, tmp_path: Path, convert: Any
) -> None:
    file = convert(tiny_llama, tmp_path / "f16.gguf", "gguf-f16")
    base = fetch.run(BaseConfig(source=str(file)), tmp_path / "base")
    assert not base.metrics["moved_off_grid"]
