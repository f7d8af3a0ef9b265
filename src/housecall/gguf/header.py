"""A GGUF file's header, held to the bounds of the file: nothing is believed, all is counted.

Native readers allocate by a header's word and may crash on one that lies. This one reads every
count against the bytes that are left, so a damaged or hostile file is an error of one line. It
needs the standard library only, because the server calls it before the engine gets the file.
Source of the format and of the rules: llama.cpp's ``ggml/src/gguf.cpp``, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from housecall.errors import ArtifactError

MAGIC = b"GGUF"
LARGEST_STRING = 1 << 24
"""Bytes; the largest known are chat templates of some 10 KB."""
LARGEST_ARRAY = 1 << 22
"""Elements; the largest known are vocabularies of some 300,000 tokens and as many merges."""
LARGEST_HEADER = 1 << 28
"""Bytes; the largest known take some 15 MB."""
_LARGEST_ALIGNMENT = 1 << 16
_MAX_DIMENSIONS = 4
_MAX_TENSOR_NAME = 63  # bytes; ggml keeps names in 64 with a zero at the end
_MAX_KEY = 65_535

# GGUF's number of a type of value: how struct spells it.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9

# Weights in a block, bytes of it, and the types that are so, by ggml's numbers.
_SIZES = (
    ((1, 4), (0, 26)),
    ((1, 2), (1, 25, 30)),
    ((1, 1), (24,)),
    ((1, 8), (27, 28)),
    ((32, 18), (2, 20)),
    ((32, 20), (3,)),
    ((32, 22), (6,)),
    ((32, 24), (7,)),
    ((32, 34), (8,)),
    ((32, 40), (9,)),
    ((32, 17), (39,)),
    ((64, 36), (40,)),
    ((128, 18), (41,)),
    ((256, 50), (19,)),
    ((256, 54), (34,)),
    ((256, 56), (29,)),
    ((256, 66), (16, 35)),
    ((256, 74), (17,)),
    ((256, 82), (22,)),
    ((256, 84), (10,)),
    ((256, 98), (18,)),
    ((256, 110), (11, 21)),
    ((256, 136), (23,)),
    ((256, 144), (12,)),
    ((256, 176), (13,)),
    ((256, 210), (14,)),
    ((256, 292), (15,)),
)
BLOCKS = {kind: size for size, kinds in _SIZES for kind in kinds}
"""Weights in a block, and bytes of it, of each type of tensor."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: ``dims`` as in torch, ``kind`` ggml's number, ``start`` in the file."""

    name: str
    dims: tuple[int, ...]
    kind: int
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the tensors' bytes: keys with plain Python values, and the tensors."""

    fields: dict[str, Any]
    tensors: tuple[TensorEntry, ...]


def read_header(path: Path) -> Header:
    """Read and check a header.

    Raises ArtifactError in one line for a file that is missing, cut short, damaged or hostile:
    counts, lengths and offsets beyond the file, types and alignments that do not exist, names
    given twice, tensors that lie on each other.
    """
    try:
        with path.open("rb") as stream:
            return _Parser(path, stream).header()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error


class _Parser:
    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        self._at = 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            self._refuse("it does not begin with GGUF")
        version = self._number("I")
        if version not in (2, 3):
            self._refuse(f"version {version:#x} is not one of 2 and 3, little-endian")
        tensor_count, key_count = self._number("Q"), self._number("Q")
        self._check_room(key_count, 13, "keys")  # length of the name, type, one byte of value
        self._check_room(tensor_count, 32, "tensors")
        fields: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string("a key", _MAX_KEY)
            if key in fields:
                self._refuse(f"the key {_shown(key)} is there twice")
            fields[key] = self._value(_shown(key))
        entries = [self._entry() for _ in range(tensor_count)]
        return Header(fields, self._place(entries, self._alignment(fields)))

    def _value(self, key: str) -> Any:
        kind = self._number("I")
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string(key, LARGEST_STRING)
        if kind != _ARRAY:
            self._refuse(f"the key {key} is of type {kind}, which does not exist")
        kind, count = self._number("I"), self._number("Q")
        if count > LARGEST_ARRAY:
            self._refuse(f"the key {key} claims {count} elements (at most {LARGEST_ARRAY})")
        if kind == _STRING:
            self._check_room(count, 8, f"strings in the key {key}")
            return [self._string(key, LARGEST_STRING) for _ in range(count)]
        if kind not in _SCALARS:
            self._refuse(f"the key {key} is an array of type {kind}, which can't be")
        size = struct.calcsize(f"<{_SCALARS[kind]}")
        self._check_room(count, size, f"elements in the key {key}")
        return list(struct.unpack(f"<{count}{_SCALARS[kind]}", self._take(count * size)))

    def _entry(self) -> TensorEntry:
        name = self._string("a tensor's name", _MAX_TENSOR_NAME)
        count = self._number("I")
        if not 1 <= count <= _MAX_DIMENSIONS:
            self._refuse(f"tensor {_shown(name)} has {count} dimensions (1 to {_MAX_DIMENSIONS})")
        dims = tuple(reversed([self._number("Q") for _ in range(count)]))
        kind, offset = self._number("I"), self._number("Q")
        if kind not in BLOCKS:
            self._refuse(f"tensor {_shown(name)} is of type {kind}, which is not known here")
        block, size = BLOCKS[kind]
        if 0 in dims:
            self._refuse(f"tensor {_shown(name)} is empty")
        if dims[-1] % block:
            self._refuse(f"tensor {_shown(name)} has rows of {dims[-1]} in blocks of {block}")
        nbytes = math.prod(dims) // block * size
        if nbytes > self._size or offset > self._size:
            self._refuse(f"tensor {_shown(name)} claims more bytes than there are")
        return TensorEntry(name, dims, kind, offset, nbytes)

    def _alignment(self, fields: dict[str, Any]) -> int:
        found = fields.get("general.alignment", 32)
        power = isinstance(found, int) and found > 0 and found & (found - 1) == 0
        if not power or found > _LARGEST_ALIGNMENT:
            self._refuse(f"general.alignment {_shown(str(found))} is not a power of two")
        return int(found)

    def _place(self, entries: list[TensorEntry], alignment: int) -> tuple[TensorEntry, ...]:
        """Tensors by their place in the file, one after the other as the format wants them."""
        data, end, names = _padded(self._at, alignment), 0, set[str]()
        placed = []
        for entry in entries:
            if entry.name in names:
                self._refuse(f"tensor {_shown(entry.name)} is there twice")
            names.add(entry.name)
            if entry.start != end:
                self._refuse(f"tensor {_shown(entry.name)} lies at {entry.start}, not at {end}")
            end = _padded(entry.start + entry.nbytes, alignment)
            start = data + entry.start
            if start + entry.nbytes > self._size:
                missing = start + entry.nbytes - self._size
                self._refuse(f"it is cut short: {missing} bytes of {_shown(entry.name)} are gone")
            placed.append(TensorEntry(entry.name, entry.dims, entry.kind, start, entry.nbytes))
        return tuple(placed)

    def _string(self, where: str, largest: int) -> str:
        length = self._number("Q")
        if length > largest:
            self._refuse(f"{where}: a text of {length} bytes (at most {largest})")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(f"{where}: a text that is not UTF-8")

    def _number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0]

    def _take(self, count: int) -> bytes:
        """The next bytes; ``count`` is checked before any memory is taken for them."""
        if count > self._size - self._at:
            self._refuse(f"it is cut short at byte {self._size}")
        if self._at + count > LARGEST_HEADER:
            self._refuse(f"its header is larger than {LARGEST_HEADER} bytes")
        self._at += count
        return self._stream.read(count)

    def _check_room(self, count: int, least: int, what: str) -> None:
        left = self._size - self._at
        if count * least > left:
            self._refuse(f"it claims {count} {what} in the {left} bytes that are left")

    def _refuse(self, why: str) -> NoReturn:
        raise ArtifactError(
            f"{self._path}: not a readable GGUF file ({why}): download or make it again"
        )


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _shown(text: str) -> str:
    """A name out of a file in a message of one line."""
    return text if text.isprintable() and len(text) <= 80 else repr(text[:80])
