"""Writing a GGUF file and reading it again; files that are not whole."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from housecall.errors import ArtifactError
from housecall.gguf.files import GgufFile, TensorInfo, pack, write_gguf

Type = GGMLQuantizationType
WEIGHTS = np.random.RandomState(3).randn(6, 512).astype(np.float32)

# The largest error against the largest weight of a row's block, from the bits of each type.
TOLERANCE = {
    Type.F32: 0.0,
    Type.F16: 0.001,
    Type.Q8_0: 0.01,
    Type.Q6_K: 0.05,
    Type.Q5_K: 0.1,
    Type.Q5_1: 0.1,
    Type.Q5_0: 0.1,
    Type.Q4_K: 0.2,
    Type.Q4_1: 0.2,
    Type.Q4_0: 0.2,
    Type.IQ4_NL: 0.2,
    Type.IQ4_XS: 0.2,
}
FIELDS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.rope.freq_base": 10_000.0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.tokens": ["<s>", "Ġthe", "\U0001f600"],
    "tokenizer.ggml.token_type": [3, 1, 1],
    "tokenizer.ggml.scores": [0.0, -1.5, -2.0],
}


def write(path: Path) -> Path:
    infos = [TensorInfo(f"blk.{k.value}.weight", WEIGHTS.shape, k) for k in TOLERANCE]
    infos.append(TensorInfo("norm.weight", (6,), Type.F32))
    packed = [*(pack(WEIGHTS, k) for k in TOLERANCE), pack(WEIGHTS[:, 0], Type.F32)]
    write_gguf(path, FIELDS, infos, packed)
    return path


def test_round_trip(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "x.gguf"))
    assert file.fields == FIELDS
    assert file.names == [*(f"blk.{k.value}.weight" for k in TOLERANCE), "norm.weight"]
    assert np.array_equal(file.tensor("norm.weight"), WEIGHTS[:, 0])
    for kind, tolerance in TOLERANCE.items():
        name = f"blk.{kind.value}.weight"
        assert file.type_of(name) == kind
        found = file.tensor(name)
        assert found.shape == WEIGHTS.shape
        assert np.abs(found - WEIGHTS).max() <= tolerance * np.abs(WEIGHTS).max()


def test_importance_moves_the_error_to_columns_that_matter_less() -> None:
    importance = np.ones(512, dtype=np.float32)
    importance[::2] = 1000
    plain, weighed = (pack(WEIGHTS, Type.Q4_K, m) for m in (None, importance))
    errors = [np.abs(unpack(data) - WEIGHTS)[:, ::2].mean() for data in (plain, weighed)]
    assert errors[1] < 0.9 * errors[0]


def unpack(data: Any) -> Any:
    import libgguf

    floats = libgguf.dequantize_rows_raw(Type.Q4_K, data, *WEIGHTS.shape)
    return np.frombuffer(floats, dtype=np.float32).reshape(WEIGHTS.shape)


def test_the_size_in_the_file_is_known_before(tmp_path: Path) -> None:
    for kind in TOLERANCE:
        assert pack(WEIGHTS, kind).nbytes == TensorInfo("x", WEIGHTS.shape, kind).nbytes


def test_bfloat16_is_read(tmp_path: Path) -> None:
    halves = (WEIGHTS.view(np.uint32) >> 16).astype(np.uint16)
    with_type(tmp_path / "x.gguf", halves.view(np.uint8), Type.BF16)
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(GgufFile(tmp_path / "x.gguf").tensor("x"), expected)


def test_a_type_without_weights_is_named(tmp_path: Path) -> None:
    with_type(tmp_path / "x.gguf", np.arange(8, dtype=np.int32), None)
    with pytest.raises(ArtifactError, match=r"x\.gguf: tensor x is of type I32"):
        GgufFile(tmp_path / "x.gguf").tensor("x")


def with_type(path: Path, data: Any, kind: GGMLQuantizationType | None) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("x", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_cut_anywhere_is_an_error_of_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 4, 7, 23, 24, *range(25, len(whole) - 32, 977), len(whole) - 33]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=r"cut\.gguf: not a readable GGUF file") as error:
            GgufFile(cut)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04" + bytes(500), b"GGUF" + b"\xff" * 500],
    ids=["zip", "ones"],
)
def test_garbage_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.gguf: not a readable GGUF file") as error:
        GgufFile(file)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        GgufFile(tmp_path / "x.gguf")


def test_an_error_while_writing_closes_the_file(tmp_path: Path) -> None:
    def broken() -> Any:
        yield pack(WEIGHTS, Type.F16)
        raise OSError(28, "No space left on device")

    infos = [TensorInfo(name, WEIGHTS.shape, Type.F16) for name in ("a", "b")]
    with pytest.raises(OSError, match="No space"):
        write_gguf(tmp_path / "x.gguf", FIELDS, infos, broken())
    with pytest.raises(ArtifactError):
        GgufFile(tmp_path / "x.gguf")


def test_the_system_s_reason_is_kept_where_a_tensor_does_not_fit(tmp_path: Path) -> None:
    """A full disk is told by its number; numpy's ``tofile`` has only counts of what it wrote."""
    infos = [TensorInfo("a", (1 << 20,), Type.F32)]
    packed = [np.ones(1 << 20, dtype=np.float32)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_gguf(tmp_path / "x.gguf", FIELDS, infos, packed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
