"""safetensors files read and written one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("safetensors", reason="needs the extra train")

import torch
from safetensors.torch import save_file

from housecall.errors import ArtifactError
from housecall.weights import TensorSpec, Weights, write_weights

TENSORS = {
    "model.layers.10.b.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "model.layers.9.b.weight": torch.arange(3, dtype=torch.float32),
    "model.embed.weight": torch.arange(4).to(torch.bfloat16).reshape(4, 1),
    "scale\u00e9": torch.tensor(7, dtype=torch.uint8),
    "packed": torch.tensor([-1, 2], dtype=torch.int8),
}
DTYPES = {"float16": "F16", "float32": "F32", "bfloat16": "BF16", "uint8": "U8", "int8": "I8"}
SPECS = {
    name: TensorSpec(DTYPES[str(t.dtype).removeprefix("torch.")], tuple(t.shape))
    for name, t in TENSORS.items()
}


def test_the_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    expected, found = tmp_path / "expected.safetensors", tmp_path / "found.safetensors"
    save_file(TENSORS, expected, metadata={"format": "pt"})
    write_weights(found, SPECS, reversed(TENSORS.items()))
    assert found.read_bytes() == expected.read_bytes()


def test_tensors_are_read_back_by_layer(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", SPECS, TENSORS.items())
    weights = Weights(tmp_path)
    assert weights.names[-2:] == ["model.layers.9.b.weight", "model.layers.10.b.weight"]
    assert set(weights) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(weights[name], tensor)
        assert weights.spec(name) == SPECS[name]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"packed": torch.zeros(3, dtype=torch.int8)}, "packed: 3 bytes, not 2"),
        ({}, r"tensors were not given: model.embed.weight, model.layers"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_weights(tmp_path / "x.safetensors", SPECS, tensors.items())


def test_damage_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_weights(file, SPECS, TENSORS.items())
    whole = file.read_bytes()
    flips = [(at, bytes([whole[at] ^ 0xFF])) for at in (0, 7, 8, 20, 60)]
    damaged = [whole[:at] + new + whole[at + 1 :] for at, new in flips]
    for content in [b"", whole[:4], whole[:100], whole[:-1], whole + b"x", *damaged]:
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match="damaged safetensors file") as error:
            Weights(tmp_path)
        assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin is pickled, which can run code"):
        Weights(tmp_path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no \.safetensors file: give a folder"):
        Weights(tmp_path)
