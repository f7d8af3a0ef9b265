"""Converting a whole folder, as the step quantize does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the GGUF format needs the extra train")
pytest.importorskip("libgguf", reason="the GGUF format needs the extra train")

from housecall.gguf import convert as conversion
from housecall.gguf.llama import check_architecture, hyperparameters
from housecall.gguf.mixture import file_type
from housecall.gguf.vocabulary import gguf_vocabulary
from housecall.steps.base import read_json
from housecall.weights import Weights

Convert = Callable[..., Path]


@pytest.fixture(scope="session")
def convert() -> Convert:
    """``convert(folder, out, fmt)`` writes a GGUF file and gives its path."""

    def convert(folder: Path, out: Path, fmt: str = "gguf-f16") -> Path:
        config = read_json(folder / "config.json")
        check_architecture(config, str(folder))
        fields = {
            "general.type": "model",
            "general.file_type": int(file_type(fmt)),
            "general.quantization_version": 2,
            **hyperparameters(config),
            **gguf_vocabulary(folder, int(config["vocab_size"])),
        }
        weights = Weights(folder, "np")
        conversion.convert(weights, config, conversion.plan(weights, config, fmt), fields, out)
        return out

    return convert
