"""Reading and writing GGUF files, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libgguf
import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFWriter,
    quant_shape_to_byte_shape,
)
from gguf.quants import dequantize
from numpy.typing import NDArray

from housecall.errors import ArtifactError

_RAW = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}


class GgufFile:
    """An open GGUF file. Raises ArtifactError when it is not one, or is cut short."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._reader = GGUFReader(path)
            skip = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")
            self.fields: dict[str, Any] = {
                name: field.contents()
                for name, field in self._reader.fields.items()
                if name not in skip
            }
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such file") from None
        except Exception as error:  # the reader raises what its parsing runs into
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ArtifactError(f"{path}: not a readable GGUF file ({reason})") from error
        self._tensors = {t.name: t for t in self._reader.tensors}

    @property
    def names(self) -> list[str]:
        """Tensor names in file order."""
        return list(self._tensors)

    def type_of(self, name: str) -> GGMLQuantizationType:
        """The type a tensor is stored in."""
        return GGMLQuantizationType(self._tensors[name].tensor_type)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's weights as float32, in torch's order of dimensions.

        Raises ArtifactError for a type that holds no weights.
        """
        tensor = self._tensors[name]
        shape = tuple(int(n) for n in reversed(tensor.shape))
        kind = self.type_of(name)
        if kind in _RAW or kind == GGMLQuantizationType.BF16:
            return np.asarray(dequantize(tensor.data, kind), dtype=np.float32).reshape(shape)
        rows, row = math.prod(shape[:-1]), shape[-1]
        try:
            floats = libgguf.dequantize_rows_raw(kind, np.ascontiguousarray(tensor.data), rows, row)
        except ValueError as error:
            raise ArtifactError(
                f"{self._path}: tensor {name} is of type {kind.name}, which can't be read here"
            ) from error
        return np.frombuffer(floats, dtype=np.float32).reshape(shape)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor to be written: its GGUF name, shape as in torch, and type in the file."""

    name: str
    dims: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.dims) // int(block) * int(size)


def pack(
    weights: NDArray[np.float32],
    kind: GGMLQuantizationType,
    importance: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """The bytes of one tensor; ``importance`` weighs the columns of a row (llama.cpp's imatrix).

    Returns an array shaped as in torch, of float32, float16, or bytes.
    """
    if kind in _RAW:
        return np.ascontiguousarray(weights, dtype=_RAW[kind])
    rows, row = math.prod(weights.shape[:-1]), weights.shape[-1]
    raw = libgguf.quantize_rows_raw(kind, np.ascontiguousarray(weights), rows, row, importance)
    return np.frombuffer(raw, dtype=np.uint8).reshape(*weights.shape[:-1], -1)


def write_gguf(
    path: Path,
    fields: Mapping[str, Any],
    tensors: Sequence[TensorInfo],
    packed: Iterable[NDArray[Any]],
) -> None:
    """Write a GGUF file; ``packed`` gives the bytes of ``tensors``, in order, one at a time."""
    with closing(GGUFWriter(path, str(fields["general.architecture"]))) as writer:
        for key, value in fields.items():
            if key != "general.architecture":
                _add(writer, key, value)
        for tensor in tensors:
            raw = tensor.kind in _RAW
            dtype = np.dtype(_RAW[tensor.kind] if raw else np.uint8)
            shape = tensor.dims if raw else quant_shape_to_byte_shape(tensor.dims, tensor.kind)
            kind = None if raw else tensor.kind
            writer.add_tensor_info(tensor.name, shape, dtype, tensor.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for data in packed:
            writer.write_tensor_data(data)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
