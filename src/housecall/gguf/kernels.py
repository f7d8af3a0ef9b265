"""llama.cpp's kernels that quantise rows: the engine's own where they can be had, else libgguf's.

Both give the same bytes, and the engine's are 1.5 to 2.6 times as fast for all but the IQ types
(``benchmarks/quantize_speed.py`` compares both with llama.cpp's own quantiser). They let go of
Python's lock, so threads are enough to use all cores.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import libgguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

Kernel = Callable[
    [GGMLQuantizationType, NDArray[np.float32], NDArray[Any], "NDArray[np.float32] | None"], None
]

_FASTER_IN_LIBGGUF = (GGMLQuantizationType.IQ4_NL, GGMLQuantizationType.IQ4_XS)
_INSTRUCTIONS = {"avx2", "fma", "f16c", "bmi2"}  # what the engine's build takes for granted


def quantize(
    kind: GGMLQuantizationType,
    rows: NDArray[np.float32],
    out: NDArray[Any],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Quantise rows into ``out``; ``importance`` weighs the columns (llama.cpp's imatrix).

    Arrays are contiguous; ``out`` has the bytes of as many rows.
    """
    kernel = _libgguf if kind in _FASTER_IN_LIBGGUF else _fast_kernel()
    kernel(kind, rows, out, importance)


def _libgguf(
    kind: GGMLQuantizationType,
    rows: NDArray[np.float32],
    out: NDArray[Any],
    importance: NDArray[np.float32] | None,
) -> None:
    libgguf.quantize_rows_into_raw(kind, rows, out, *rows.shape, importance)


@cache
def _fast_kernel() -> Kernel:
    engine = _engine_kernel()
    return engine if engine is not None and _agrees(engine) else _libgguf


def _engine_kernel() -> Kernel | None:
    """``ggml_quantize_chunk`` out of the engine's library, if it and this machine have it."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None or not _has_instructions():
        return None
    try:
        library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
        chunk = library.ggml_quantize_chunk
    except (StopIteration, OSError, AttributeError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    chunk.restype = ctypes.c_size_t

    def quantize(
        kind: GGMLQuantizationType,
        rows: NDArray[np.float32],
        out: NDArray[Any],
        importance: NDArray[np.float32] | None,
    ) -> None:
        weighs = None if importance is None else importance.ctypes.data
        written = chunk(kind, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, weighs)
        assert written == out.nbytes, f"{kind.name}: {written} bytes, not {out.nbytes}"

    return quantize


def _has_instructions() -> bool:
    """Native code dies where an instruction is missing, so what is not known counts as missing."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return set(flags) >= _INSTRUCTIONS


def _agrees(kernel: Kernel) -> bool:
    """True when a kernel gives libgguf's bytes: a new version of the engine may do otherwise."""
    kind = GGMLQuantizationType.Q4_K
    random = np.random.RandomState(0)
    rows = random.randn(2, 256).astype(np.float32)
    importance = random.rand(256).astype(np.float32)
    found, expected = (np.zeros((2, libgguf.row_size(kind, 256)), dtype=np.uint8) for _ in range(2))
    kernel(kind, rows, found, importance)
    _libgguf(kind, rows, expected, importance)
    return np.array_equal(found, expected)
