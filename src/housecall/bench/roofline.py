"""What this machine could do at most: how fast it reads memory, how fast it multiplies matrices.

A new token needs every weight read once, so decoding can't be faster than reading the weights;
a prompt's tokens share that reading, so there the multiplications are the limit (the roofline
model: Williams, Waterman, Patterson 2009). Imports torch: runs in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from housecall.bench.base import Tell
from housecall.bench.report import Limits

_BYTES = 512 * 2**20  # far more than any cache holds
_SIZE = 2048  # of square matrices
_TIMES = 5


def measure_roofline(threads: int, tell: Tell) -> Limits:
    """The best of a few attempts each: a limit is not what is usual but what is possible."""
    torch.set_num_threads(threads)
    tell("roofline")
    return Limits(
        read_bytes_per_second=_read_rate(threads),
        float32_flops=_multiply_rate("float32"),
        bfloat16_flops=_multiply_rate("bfloat16"),
    )


def _read_rate(threads: int) -> float:
    """Dot products of a large array with itself, a part of it in each thread (BLAS' ``sdot``)."""
    array = np.ones(_BYTES // 4, dtype=np.float32)
    parts = np.array_split(array, threads)
    with ThreadPoolExecutor(threads) as pool:
        return array.nbytes / _best(lambda: list(pool.map(lambda part: part @ part, parts)))


def _multiply_rate(dtype: str) -> float:
    left, right = (torch.randn(_SIZE, _SIZE).to(getattr(torch, dtype)) for _ in range(2))
    return 2 * _SIZE**3 / _best(lambda: left @ right)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few attempts; the first one warms up."""
    work()
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
