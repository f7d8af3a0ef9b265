"""Converting a whole folder, as the step quantize does it tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the GGUF format needs the extra train")
pytest.importorskip("libgguf", reason="the GGUF format needs the extra train")

import numpy as np

from housecall.gguf.files import TensorInfo, pack, write_gguf
from housecall.gguf.llama import (
    check_architecture,
    gguf_name,
    hyperparameters,
    model_shape,
    to_gguf_order,
)
from housecall.gguf.mixture import file_type, tensor_type
from housecall.gguf.vocabulary import gguf_vocabulary
from housecall.steps.base import open_weights, read_json

Convert = Callable[..., Path]


@pytest.fixture(scope="session")
def convert() -> Convert:
    """``convert(folder, out, fmt)`` writes a GGUF file and gives its path."""

    def convert(folder: Path, out: Path, fmt: str = "gguf-f16") -> Path:
        config = read_json(folder / "config.json")
        check_architecture(config, str(folder))
        fields = {
            "general.architecture": "llama",
            "general.type": "model",
            "general.file_type": int(file_type(fmt)),
            "general.quantization_version": 2,
            **hyperparameters(config),
            **gguf_vocabulary(folder, int(config["vocab_size"])),
        }
        tensors, packed = [], []
        with open_weights(folder, "np") as weights:
            for name in weights.names:
                target, dims = gguf_name(name), weights.shape(name)
                kind, _ = tensor_type(fmt, target, dims, model_shape(config))
                tensors.append(TensorInfo(target, dims, kind))
                ordered = to_gguf_order(target, config)(weights[name])
                packed.append(pack(ordered.astype(np.float32), kind))
        write_gguf(out, fields, tensors, packed)
        return out

    return convert
