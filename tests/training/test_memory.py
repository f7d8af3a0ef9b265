"""The heap is held near what was said before a training began."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from housecall.training import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own ways")

SIZE, COUNT = 100_000, 1000
"""Blocks that come from the heap; larger ones may be maps of their own."""


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@contextmanager
def holes() -> Iterator[int]:
    """Free blocks, each before a small used one: a heap that cannot shrink; their bytes."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks, pins = [], []
    for _ in range(COUNT):
        block = library.malloc(ctypes.c_size_t(SIZE))
        ctypes.memset(block, 1, SIZE)
        blocks.append(block)
        pins.append(library.malloc(ctypes.c_size_t(64)))
    for block in blocks:
        library.free(block)
    yield SIZE * COUNT
    for pin in pins:
        library.free(pin)


def test_nothing_is_given_back_below_the_limit() -> None:
    with holes() as free:
        before = resident()
        memory.give_back(before + free)
        assert resident() > before - free / 10


def test_what_is_held_without_use_is_given_back_above_it() -> None:
    with holes() as free:
        before = resident()
        memory.give_back(before - free)
        assert resident() < before - free / 2
