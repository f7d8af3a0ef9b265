"""The heap is held near what was said before a training began."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own ways")

# In a process of its own: the heap of a suite has holes enough for the blocks to come from.
HOLES = """
import ctypes, psutil
from housecall.training import memory

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
blocks = []
for _ in range(3000):
    block = library.malloc(ctypes.c_size_t(100_000))  # below the size that is a map of its own
    ctypes.memset(block, 1, 100_000)
    library.malloc(ctypes.c_size_t(64))  # stays in use behind it, so that the heap cannot shrink
    blocks.append(block)
for block in blocks:
    library.free(block)
before = psutil.Process().memory_info().rss
memory.give_back(before + {above})
print(before - psutil.Process().memory_info().rss)
"""
FREE = 3000 * 100_000


def given_back(above: int) -> int:
    """Bytes that went back at a limit of ``above`` more than are held, of FREE that could."""
    command = [sys.executable, "-c", HOLES.replace("{above}", str(above))]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def test_nothing_is_given_back_below_the_limit() -> None:
    assert given_back(FREE) < FREE / 10


def test_what_is_held_without_use_is_given_back_above_it() -> None:
    assert given_back(-FREE) > FREE / 2
