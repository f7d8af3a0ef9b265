"""Quantised bytes against llama.cpp's own, with and without an importance matrix.

tests/golden/llama-cpp-kernels.json holds hashes of what ``ggml_quantize_chunk`` of llama.cpp (out
of llama-cpp-python 0.3.36, compiled without AMX) makes of these weights and this matrix.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from gguf import GGMLQuantizationType

import golden_files
from housecall.gguf import kernels
from housecall.gguf.files import pack

RANDOM = np.random.RandomState(11)  # its stream is frozen
WEIGHTS = (RANDOM.randn(24, 768) * np.exp(RANDOM.randn(24, 1))).astype(np.float32)
MATRIX = (RANDOM.rand(768) ** 4 + 1e-4).astype(np.float32)
GOLDEN = golden_files.read("llama-cpp-kernels.json")


@pytest.fixture(params=["fast", "libgguf"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine takes, and what a machine without the engine's kernels takes."""
    if request.param == "libgguf":
        monkeypatch.setattr(kernels, "_fast_kernel", lambda: kernels._libgguf)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_are_llama_cpps(name: str) -> None:
    found = {
        "plain": pack(WEIGHTS, GGMLQuantizationType[name]),
        "matrix": pack(WEIGHTS, GGMLQuantizationType[name], MATRIX),
    }
    hashes = {k: hashlib.sha256(v.tobytes()).hexdigest()[:16] for k, v in found.items()}
    assert hashes == GOLDEN[name]


def test_an_engine_that_quantises_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_engine_kernel", lambda: lambda *_: None)
    assert kernels._fast_kernel.__wrapped__() is kernels._libgguf


def test_an_engine_without_the_symbol_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert kernels._engine_kernel() is None
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "_INSTRUCTIONS", {"no-cpu-has-this"})
    assert kernels._engine_kernel() is None
