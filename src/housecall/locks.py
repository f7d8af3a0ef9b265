"""Who uses a run just now: files in it that processes hold a lock on while they live."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from housecall.errors import ArtifactError

Use = Literal["working", "serving"]
_FILES = {"working": ".lock", "serving": ".serving"}


@contextmanager
def working(run: Path) -> Iterator[None]:
    """Keep other processes from making the same run. Raises ArtifactError when one does."""
    with (run / _FILES["working"]).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArtifactError(f"{run}: another housecall is working on this run") from None
        yield


@contextmanager
def serving(run: Path) -> Iterator[None]:
    """Say that a run is being served; many may do so at once.

    A run on a disk that can't be written to can't be removed either: nothing is said then.
    """
    try:
        file = (run / _FILES["serving"]).open("w")
    except OSError:
        yield
        return
    with file:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def held(run: Path, use: Use) -> bool:
    """Whether a process holds that lock."""
    path = run / _FILES[use]
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
