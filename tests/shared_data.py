"""Where the shared data sets lie that some tests read; they are no part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDER = Path(
    os.environ.get("HOUSECALL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
)


def shared_data(name: str) -> Path:
    """A file of the shared data; skips the test where it is absent."""
    file = _FOLDER / name
    if not file.exists():
        pytest.skip(f"{file} is absent (HOUSECALL_SHARED_DATA names another folder)")
    return file
