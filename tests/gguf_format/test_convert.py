"""Converting: the memory of a few tensors, whatever the size of the model."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from housecall.errors import ArtifactError
from housecall.gguf import convert as module
from housecall.gguf.convert import convert, plan
from housecall.gguf.files import GgufFile
from housecall.gguf.header import read_header
from housecall.weights import Weights

LAYERS = 24
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "hidden_size": 256,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but MLPs, each of the same size."""
    folder = tmp_path_factory.mktemp("model")
    weights = np.random.RandomState(0).randn(1024, 256).astype(np.float16)
    names = [f"model.layers.{i}.mlp.{p}_proj.weight" for i in range(LAYERS) for p in ("up", "gate")]
    save_file(dict.fromkeys(names, weights), folder / "model.safetensors")
    return folder


def make(folder: Path, out: Path, fmt: str) -> None:
    weights = Weights(folder, "np")
    plans = plan(weights, CONFIG, fmt)
    matrix = {p.target.name: np.ones(256, dtype=np.float32) for p in plans}
    convert(weights, CONFIG, plans, {"general.architecture": "llama"}, out, importance=matrix)


@pytest.mark.parametrize("fmt", ["gguf-f16", "gguf-q8_0", "gguf-q4_k_m"])
def test_memory_is_that_of_a_few_tensors(
    model: Path, tmp_path: Path, fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1 << 14)  # small beside these tensors, as in real ones
    largest = 1024 * 256 * 4  # bytes in float32
    make(model, tmp_path / "warm.gguf", fmt)
    tracemalloc.start()
    try:
        make(model, tmp_path / "x.gguf", fmt)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read_header(tmp_path / "x.gguf").tensors) == 2 * LAYERS
    assert peak < 3 * largest


def test_rows_packed_in_parts_are_those_packed_at_once(model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "x.gguf", "gguf-q8_0")
    file, weights = GgufFile(tmp_path / "x.gguf"), Weights(model, "np")
    found = file.tensor("blk.3.ffn_up.weight")
    expected = weights["model.layers.3.mlp.up_proj.weight"].astype(np.float32)
    assert np.abs(found - expected).max() < 0.02
    assert np.array_equal(found, file.tensor("blk.20.ffn_gate.weight"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = np.zeros((4, 256), dtype=np.float16)
    weights[2, 7] = value
    save_file({"model.layers.0.mlp.up_proj.weight": weights}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"blk.0.ffn_up.weight: holds values that are not"):
        make(tmp_path, tmp_path / "x.gguf", "gguf-q4_0")
