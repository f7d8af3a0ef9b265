"""Doctor-patient dialogues out of files, the package or the hub, one row at a time."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from housecall.artifact import hash_file
from housecall.config import DataConfig
from housecall.errors import DataError
from housecall.types import Message, Role

BUILTIN = {"builtin:starter": "starter.jsonl"}
_ALPACA = ("instruction", "input", "output")
# Rows of real data sets are far below this; a field above it is a broken file.
_FIELD_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One dialogue and where it stands: ``number`` counts from 1."""

    number: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no dialogue, and why."""

    number: int
    reason: str


def read_rows(config: DataConfig) -> Iterator[Row | BadRow]:
    """The first ``config.limit`` rows of the source.

    Raises DataError when the source is missing, can't be read, or has other columns.
    """
    raws = islice(_open(config.source), config.limit)
    for number, raw in enumerate(raws, start=1):
        if number == 1:
            _check_columns(raw, config)
        try:
            yield Row(number, _messages(raw, config.mapping))
        except (KeyError, TypeError, ValueError) as error:
            yield BadRow(number, f"not a dialogue: {error}")


def source_name(config: DataConfig) -> str:
    """The source as lineage names it: never a path of this machine."""
    known = config.source.startswith(("builtin:", "hub:"))
    return config.source if known else Path(config.source).name


def source_hash(config: DataConfig) -> str | None:
    """SHA-256 of the file behind a source; None for the hub, and for a file that is not here."""
    if config.source in BUILTIN:
        raw = (resources.files("housecall") / "data" / BUILTIN[config.source]).read_bytes()
        return hashlib.sha256(raw).hexdigest()
    path = Path(config.source).expanduser()
    return hash_file(path) if path.is_file() else None


def _open(source: str) -> Iterator[Any]:
    if source in BUILTIN:
        text = (resources.files("housecall") / "data" / BUILTIN[source]).read_text("utf-8")
        return (json.loads(line) for line in text.splitlines())
    if source.startswith("builtin:"):
        raise DataError(f"data.source {source}: the built-in ones are {', '.join(BUILTIN)}")
    if source.startswith("hub:"):
        return _hub(source.removeprefix("hub:"))
    path = Path(source).expanduser()
    readers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(
            f"data.source {source}: give builtin:starter, hub:ORG/NAME, or a file that ends in "
            f"{', '.join(readers)}"
        )
    if not path.is_file():
        raise DataError(f"data.source {path}: no such file")
    return _readable(path, readers[path.suffix](path))


def _readable(path: Path, rows: Iterator[Any]) -> Iterator[Any]:
    """Turn what can go wrong while reading into one line that names the file."""
    try:
        yield from rows
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"data.source {path}: can't be read: {reason}") from error


def _json(path: Path) -> Iterator[Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError("a .json data set is a list of rows")
    yield from rows


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.DictReader(stream)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _hub(name: str) -> Iterator[Any]:
    try:
        import datasets

        yield from datasets.load_dataset(name, split="train", streaming=True)
    except Exception as error:  # many libraries' errors mean one thing here
        reason = " ".join(str(error).split())[:100]
        raise DataError(
            f"data.source hub:{name}: could not be had from the Hugging Face hub "
            f"({type(error).__name__}: {reason}); without a network give a file: "
            "--set data.source=FILE.jsonl"
        ) from error


def _check_columns(raw: Any, config: DataConfig) -> None:
    """Columns are a property of the whole file: refuse it by its first row."""
    names = list(raw) if isinstance(raw, Mapping) else []
    wanted = list(config.mapping.values()) if config.mapping else None
    if wanted is not None:
        missing = [name for name in wanted if name not in names]
    else:
        missing = [] if "messages" in names else [n for n in _ALPACA if n not in names]
    if missing:
        raise DataError(
            f"data.source {config.source}: no column {', '.join(missing)} (found: "
            f"{', '.join(map(str, names)) or 'no columns'}): a data set has instruction, input "
            "and output, or messages, or a data.mapping in the recipe"
        )


def _messages(raw: Any, mapping: Mapping[Role, str] | None) -> tuple[Message, ...]:
    if mapping:
        named: list[tuple[Role, str | None]] = [
            (role, mapping.get(role)) for role in get_args(Role)
        ]
        return tuple(Message(role, _text(raw, column)) for role, column in named if column)
    if "messages" in raw:
        return tuple(_message(entry) for entry in raw["messages"])
    instruction, given, answer = (_text(raw, name) for name in _ALPACA)
    if not given.strip():  # an instruction without input is the question itself
        return Message("user", instruction), Message("assistant", answer)
    return Message("system", instruction), Message("user", given), Message("assistant", answer)


def _message(entry: Any) -> Message:
    role = entry["role"]
    if role not in get_args(Role):
        raise ValueError(f"role {role!r}")
    return Message(role, _text(entry, "content"))


def _text(raw: Any, column: str) -> str:
    value = raw[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{column} is not text")
    if len(value) > _FIELD_LIMIT:
        raise ValueError(f"{column} has {len(value):,} characters")
    return value
