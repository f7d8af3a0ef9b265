"""Freed memory is kept while a model is trained, and given back afterwards."""

from __future__ import annotations

import platform
import resource

import psutil
import pytest

from housecall.training import heap

BLOCK = 48 << 20
PAGES = BLOCK // resource.getpagesize()

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own ways")


def faults_of_a_block() -> int:
    """How many pages the system had to hand out for a block that is freed at once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * BLOCK
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_block_is_taken_from_the_system_once_and_given_back_at_the_end() -> None:
    with heap.kept():
        faults_of_a_block()
        inside = faults_of_a_block()
        held = psutil.Process().memory_info().rss
    assert inside < PAGES / 10
    assert psutil.Process().memory_info().rss < held - BLOCK / 2
    assert faults_of_a_block() > PAGES / 2


def test_memory_is_given_back_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), heap.kept():
        faults_of_a_block() / 0
    assert faults_of_a_block() > PAGES / 2
