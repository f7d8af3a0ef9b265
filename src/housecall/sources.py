"""Doctor-patient dialogues out of files, the package or the hub, one row at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

from housecall.artifact import hash_file
from housecall.config import DataConfig
from housecall.errors import DataError
from housecall.readers import Unreadable, read_file, read_hub
from housecall.types import Message, Role

BUILTIN = {"builtin:starter": "starter.jsonl"}
_ALPACA = ("instruction", "input", "output")
# Fields of real data sets are far below this.
_FIELD_LIMIT = 1_000_000
_NAMES_SHOWN = 20
_NAME_SHOWN = 60  # characters
# So many rows are looked at before a file is refused for its columns.
_FIRST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One dialogue and where it stands: ``number`` counts from 1."""

    number: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no dialogue: the kind of fault, what it is here, and the row as text."""

    number: int
    reason: str
    detail: str
    text: str


def read_rows(config: DataConfig) -> Iterator[Row | BadRow]:
    """The first ``config.limit`` rows of the source.

    Raises DataError when the source is missing, can't be read, or has other columns.
    """
    raws = _open(config.source)
    first = list(islice(raws, _FIRST_ROWS))
    _check_columns(first, config)
    rows = islice(chain(first, raws), config.limit)
    first = []  # they may be large
    for number, raw in enumerate(rows, start=1):
        yield _row(number, raw, config.mapping)


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
        return read_hub(source.removeprefix("hub:"))
    return read_file(Path(source).expanduser())


def _check_columns(first: list[Any], config: DataConfig) -> None:
    """Columns are a property of the whole file: refuse it when none of the first rows has them."""
    rows = [raw for raw in first if isinstance(raw, Mapping)]
    if any(not _missing(raw, config.mapping) for raw in rows):
        return
    readable = next((raw for raw in first if not isinstance(raw, Unreadable)), None)
    if readable is None:
        return
    names = list(rows[0])[:_NAMES_SHOWN] if rows else []
    raise DataError(
        f"data.source {config.source}: no column "
        f"{', '.join(_missing(rows[0] if rows else {}, config.mapping))} (found: "
        f"{', '.join(map(_shown, names)) or 'no columns'}): a data set has instruction, input "
        "and output, or messages, or a data.mapping in the recipe"
    )


def _shown(name: object) -> str:
    """A column's name as an error may show it: a broken file must not write to the terminal."""
    text = str(name)[:_NAME_SHOWN]
    return text if text.isprintable() else ascii(text)


def _missing(raw: Mapping[str, Any], mapping: Mapping[Role, str] | None) -> list[str]:
    if mapping:
        return [name for name in mapping.values() if name not in raw]
    return [] if "messages" in raw else [name for name in _ALPACA if name not in raw]


def _row(number: int, raw: Any, mapping: Mapping[Role, str] | None) -> Row | BadRow:
    if isinstance(raw, Unreadable):
        return BadRow(number, raw.reason, raw.detail, raw.text)
    try:
        if not isinstance(raw, Mapping):
            raise TypeError(f"a row is {type(raw).__name__}, not columns with values")
        missing = _missing(raw, mapping)
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        messages = _messages(raw, mapping)
    except (KeyError, TypeError, ValueError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        return BadRow(number, "not a dialogue", detail, _as_text(raw))
    return Row(number, messages)


def _as_text(raw: Any) -> str:
    try:
        return json.dumps(raw, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(raw)


def _messages(raw: Mapping[str, Any], mapping: Mapping[Role, str] | None) -> tuple[Message, ...]:
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
    if not isinstance(entry, Mapping):
        raise TypeError(f"a message is {type(entry).__name__}, not role and content")
    role = entry["role"]
    if role not in get_args(Role):
        raise ValueError(f"role {role!r}")
    return Message(role, _text(entry, "content"))


def _text(raw: Mapping[str, Any], column: str) -> str:
    value = raw[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{column} is {type(value).__name__}, not text")
    if len(value) > _FIELD_LIMIT:
        raise ValueError(f"{column} has {len(value):,} characters")
    return value
