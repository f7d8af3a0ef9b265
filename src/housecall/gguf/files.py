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
    GGUFWriter,
    quant_shape_to_byte_shape,
)
from numpy.typing import NDArray

from housecall.errors import ArtifactError
from housecall.gguf.header import read_header
from housecall.gguf.kernels import quantize

_RAW = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}


class GgufFile:
    """A GGUF file whose tensors are read one at a time. Raises ArtifactError as ``read_header``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        header = read_header(path)
        self.fields: dict[str, Any] = header.fields
        self._tensors = {tensor.name: tensor for tensor in header.tensors}

    @property
    def names(self) -> list[str]:
        """Tensor names in file order."""
        return list(self._tensors)

    def dims(self, name: str) -> tuple[int, ...]:
        """Dimensions as in torch."""
        return self._tensors[name].dims

    def type_of(self, name: str) -> GGMLQuantizationType:
        """The type a tensor is stored in."""
        return GGMLQuantizationType(self._tensors[name].kind)

    @property
    def quantized(self) -> bool:
        """True when some of its weights lie on a grid."""
        plain = (*_RAW, GGMLQuantizationType.BF16)
        return any(self.type_of(name) not in plain for name in self._tensors)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's weights as float32, in torch's order of dimensions.

        Raises ArtifactError for a type that holds no weights.
        """
        entry, kind = self._tensors[name], self.type_of(name)
        count = entry.nbytes
        raw = np.fromfile(self._path, dtype=np.uint8, count=count, offset=entry.start)
        if kind in _RAW:
            return raw.view(_RAW[kind]).astype(np.float32, copy=False).reshape(entry.dims)
        if kind == GGMLQuantizationType.BF16:
            return (
                (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry.dims)
            )
        rows, row = math.prod(entry.dims[:-1]), entry.dims[-1]
        weights = np.empty(entry.dims, dtype=np.float32)
        try:
            libgguf.dequantize_rows_into_raw(kind, raw, weights, rows, row)
        except ValueError as error:
            raise ArtifactError(
                f"{self._path}: tensor {name} is of type {kind.name}, which can't be read here"
            ) from error
        return weights


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


def empty(target: TensorInfo) -> NDArray[Any]:
    """Room for a packed tensor: shaped as in torch, of float32, float16, or bytes."""
    if target.kind in _RAW:
        return np.empty(target.dims, dtype=_RAW[target.kind])
    return np.empty(quant_shape_to_byte_shape(target.dims, target.kind), dtype=np.uint8)


def pack_rows(
    rows: NDArray[np.float32],
    kind: GGMLQuantizationType,
    out: NDArray[Any],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Pack rows into ``out``, a part of what ``empty`` gave.

    ``importance`` weighs the columns of a row (llama.cpp's imatrix).
    """
    if kind in _RAW:
        out[...] = rows
    else:
        quantize(kind, rows, out, importance)


def pack(
    weights: NDArray[np.float32],
    kind: GGMLQuantizationType,
    importance: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """The bytes of one whole tensor, as ``empty`` shapes them."""
    out = empty(TensorInfo("", weights.shape, kind))
    rows = np.ascontiguousarray(weights).reshape(-1, weights.shape[-1])
    pack_rows(rows, kind, out.reshape(len(rows), -1), importance)
    return out


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
        _write_tensors(writer, tensors, packed)


def _write_tensors(
    writer: GGUFWriter, tensors: Sequence[TensorInfo], packed: Iterable[NDArray[Any]]
) -> None:
    """What the writer would do with numpy's ``tofile``, whose error does not tell a full disk."""
    assert writer.fout is not None
    stream = writer.fout[0]
    for tensor, data in zip(tensors, packed, strict=True):
        assert data.nbytes == tensor.nbytes, tensor.name
        writer.write_padding(stream, stream.tell())
        stream.write(np.ascontiguousarray(data).data)
        writer.write_padding(stream, tensor.nbytes)


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
