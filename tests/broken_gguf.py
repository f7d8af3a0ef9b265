"""GGUF files with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from housecall.gguf.files import GgufFile, TensorInfo, pack, write_gguf

Change = Callable[[Any], Any]


def rewrite_gguf(
    source: Path,
    target: Path,
    fields: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Change] | None = None,
) -> Path:
    """A copy of a GGUF file with some keys and some tensors changed."""
    file = GgufFile(source)
    infos = [TensorInfo(n, tuple(file.tensor(n).shape), file.type_of(n)) for n in file.names]
    changes = tensors or {}
    packed = (
        pack(changes.get(info.name, lambda weights: weights)(file.tensor(info.name)), info.kind)
        for info in infos
    )
    write_gguf(target, {**file.fields, **(fields or {})}, infos, packed)
    return target
