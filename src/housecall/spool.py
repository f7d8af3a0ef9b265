"""Lines on disk, written one after the other and read back in any order."""

from __future__ import annotations

from array import array
from pathlib import Path
from types import TracebackType


class Spool:
    """A temporary file of lines; only where each begins is in memory. Gone when it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._starts = array("Q", [0])

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, line: str) -> int:
        """Keep a line; its number, counted from 0. All lines are added before one is read."""
        raw = line.encode("utf-8")
        self._file.write(raw)
        self._starts.append(self._starts[-1] + len(raw))
        return len(self) - 1

    def read(self, number: int) -> str:
        """A line by its number."""
        self._file.seek(self._starts[number])
        return self._file.read(self._starts[number + 1] - self._starts[number]).decode("utf-8")
