"""The tensors of a model folder's safetensors files, read and written one at a time.

Memory stays at one tensor: a file is mapped only while one of its tensors is read (pages of a
file that stays mapped count as memory of the process), and a file is written tensor by tensor,
which the library's own ``save_file`` can't do. The bytes are those that ``save_file`` writes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from housecall.errors import ArtifactError

# Bytes of each type, in the order in which the format puts them, the last first.
_DTYPES = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor in a safetensors file; ``dtype`` as the format spells it, such as F16."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        return math.prod(self.shape) * _DTYPES[self.dtype]


class Weights(Mapping[str, Any]):
    """Tensors by name, each read when it is asked for. ``framework``: ``pt`` or ``np``."""

    def __init__(self, folder: Path, framework: str = "pt") -> None:
        """Raises ArtifactError when there is no safetensors file, or one is damaged."""
        self._framework = framework
        self._files: dict[str, Path] = {}
        self._specs: dict[str, TensorSpec] = {}
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise ArtifactError(_nothing_to_read(folder))
        for path in paths:
            try:
                with safe_open(path, framework) as file:
                    for name in file.keys():  # noqa: SIM118 (not a mapping)
                        self._files[name] = path
                        tensor = file.get_slice(name)
                        self._specs[name] = TensorSpec(tensor.get_dtype(), (*tensor.get_shape(),))
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from error

    @property
    def names(self) -> list[str]:
        """All tensor names, sorted by layer number."""
        return sorted(self._files, key=_by_layer)

    def spec(self, name: str) -> TensorSpec:
        """Type and dimensions, without reading the tensor."""
        return self._specs[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Dimensions as in torch."""
        return self._specs[name].shape

    def __getitem__(self, name: str) -> Any:
        path = self._files[name]
        try:
            with safe_open(path, self._framework) as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def write_weights(
    path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, Any]]
) -> None:
    """Write a safetensors file; ``tensors`` gives name and tensor (torch or numpy), in any order.

    Raises ValueError for a tensor that is missing or does not have the size its spec says.
    """
    ranks = list(_DTYPES)
    order = sorted(specs, key=lambda name: (-ranks.index(specs[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places: dict[str, int] = {}
    end = 0
    for name in order:
        spec = specs[name]
        places[name], end = end, end + spec.nbytes
        offsets = [places[name], end]
        header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            stream.seek(8 + len(text) + places.pop(name))
            raw = _bytes_of(tensor)
            if raw.nbytes != specs[name].nbytes:
                raise ValueError(f"{name}: {raw.nbytes} bytes, not {specs[name].nbytes}")
            stream.write(raw)
    if places:
        raise ValueError(f"tensors were not given: {', '.join(sorted(places)[:3])}")


def _bytes_of(tensor: Any) -> memoryview:
    if hasattr(tensor, "detach"):  # torch: numpy knows no bfloat16
        import torch

        tensor = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(tensor).cast("B")


def _damaged(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path}: damaged safetensors file ({' '.join(str(error).split())}): "
        "download or make it again"
    )


def _nothing_to_read(folder: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if not pickles:
        return f"{folder}: no .safetensors file: give a folder that holds a model"
    return (
        f"{folder}: {pickles[0]} is pickled, which can run code when it is read, and there is no "
        ".safetensors file: save the model with save_pretrained, or take another copy of it"
    )


def _by_layer(name: str) -> tuple[int, str]:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return (numbers[0] if numbers else -1, name)
