"""Rows out of files and the hub, as they are found, one at a time.

No reader holds more of a file than a block and the row it is at, so a data set may be larger than
memory. Bytes that are not UTF-8 become lone surrogates: the row they stand in is refused later,
and nothing of it is lost.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from housecall.errors import DataError, reason_of

# A row of a real data set is far below this; what is above it is a broken file.
_ROW_LIMIT = 64_000_000
_BLOCK = 1 << 20
_BATCH = 256
_SPACE = " \t\n\r"  # to JSON; Python knows more
_AFTER_ROW = re.compile(rf"[{_SPACE}]*[,\]]")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is there, but can't be read: the kind of fault, what it is here, and its text."""

    reason: str
    detail: str
    text: str


def read_file(path: Path) -> Iterator[Any]:
    """The rows of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file.

    Raises DataError naming the file and what is wrong with it.
    """
    readers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(
            f"data.source {path}: give builtin:starter, hub:ORG/NAME, or a file that ends in "
            f"{', '.join(readers)}"
        )
    if not path.is_file():
        raise DataError(f"data.source {path}: no such file")
    try:
        yield from readers[path.suffix](path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"data.source {path}: can't be read: {reason_of(error)}") from error


def read_hub(name: str) -> Iterator[Any]:
    """The training rows of a data set on the Hugging Face hub, streamed.

    Raises DataError when it can't be had.
    """
    try:
        import datasets

        yield from datasets.load_dataset(name, split="train", streaming=True)
    except Exception as error:  # many libraries' errors mean one thing here
        raise DataError(
            f"data.source hub:{name}: could not be had from the Hugging Face hub "
            f"({type(error).__name__}: {reason_of(error)}); without a network give a file: "
            "--set data.source=FILE.jsonl"
        ) from error


def _open(path: Path, newline: str | None = None) -> TextIO:
    with path.open("rb") as stream:
        if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is UTF-16: save it as UTF-8")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _jsonl(path: Path) -> Iterator[Any]:
    with _open(path, newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _parsed(line.rstrip("\r\n"), number)


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable("not JSON", f"line {number}: {error}", line)


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(_ROW_LIMIT)
    with _open(path, newline="") as stream:
        for row in csv.DictReader(stream):
            if None in row:
                extra = f"{len(row[None])} more"
                yield Unreadable("more fields than columns", extra, repr(list(row.values())))
            else:
                yield row


def _json(path: Path) -> Iterator[Any]:
    """The rows of one JSON list, of which only a block and the row at hand are in memory."""
    decoder = json.JSONDecoder()
    with _open(path) as stream:
        text = _Window(stream)
        if text.peek() != "[":
            raise ValueError("a .json data set is a list of rows")
        text.skip()
        number = 0
        while number or text.peek() != "]":
            number += 1
            yield text.value(decoder, number)
            if text.peek() != ",":
                break
            text.skip()
        end = text.peek()
        if end != "]":
            raise ValueError(f"after row {number} comes {end or 'the end of the file'}")
        text.skip()
        if text.peek():
            raise ValueError(f"after the list comes {text.peek()}")


class _Window:
    """A stretch of a text file, long enough for the value at its start."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._start = 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            rest = self._text[self._start : self._start + 1]
            if rest and rest not in _SPACE:
                return rest
            if not rest and not self._more():
                return ""
            self._start += bool(rest)

    def skip(self) -> None:
        """Go over a character that was looked at."""
        self._start += 1

    def value(self, decoder: json.JSONDecoder, number: int) -> Any:
        """The JSON value that comes next. Raises ValueError when there is none."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._start)
            except RecursionError as error:
                raise ValueError(f"row {number}: nested too deeply") from error
            except ValueError as error:
                if len(self._text) > _ROW_LIMIT or not self._more():
                    reason = str(error).partition(": line ")[0]
                    raise ValueError(f"row {number}: not JSON: {reason}") from error
                continue
            # A number may go on in the next block: it ends where its row does.
            whole = _AFTER_ROW.match(self._text, end) or len(self._text) > _ROW_LIMIT
            if whole or not self._more():
                self._start = end
                return value

    def _more(self) -> bool:
        """Read on, twice as far each time, so that a long row is not tried too often."""
        kept = len(self._text) - self._start
        read = self._stream.read(max(_BLOCK, kept))
        if read:
            self._text, self._start = self._text[self._start :] + read, 0
        return bool(read)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH):
            yield from _rows_of(batch)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _rows_of(batch: Any) -> list[dict[str, Any]]:
    """A batch's rows; columns of text that are not UTF-8 are read as bytes first."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        import pyarrow

        columns = {
            name: column.cast(pyarrow.binary()) if pyarrow.types.is_string(column.type) else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        rows = pyarrow.RecordBatch.from_pydict(columns).to_pylist()
        rows = [{name: _decoded(value) for name, value in row.items()} for row in rows]
    return rows


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
