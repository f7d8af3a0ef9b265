"""What is wrong with a GGUF file, in words: its keys and its weights against the merged model.

The engine's behaviour and the gate's figures say *that* something is wrong; this says what to
look at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from housecall.causal_lm import load_config
from housecall.gguf.files import GgufFile
from housecall.gguf.llama import extra_tensors, gguf_name, hyperparameters, to_gguf_order
from housecall.gguf.vocabulary import gguf_vocabulary
from housecall.weights import Weights

_MEANS = {
    "rope.freq_base": "the base of the rotary positions (RoPE) is wrong",
    "rope.dimension_count": "the rotary positions (RoPE) cover other dimensions",
    "tokenizer.ggml.eos_token_id": "the end-of-turn token is lost",
    "tokenizer.ggml.bos_token_id": "BOS is another token",
    "tokenizer.ggml.add_bos_token": "BOS would be put before a prompt that has it, or left out",
    "tokenizer.ggml.tokens": "the vocabulary is not the model's",
    "tokenizer.ggml.token_type": "tokens are control tokens that were none, or the other way round",
    "tokenizer.chat_template": "the chat template is not the model's",
}
# The largest relative error (root of mean squares) that rounding to a type explains. Measured on
# SmolLM2 with room above; a type that is not listed has about four bits or fewer.
_ROUNDING = {
    GGMLQuantizationType.F32: 1e-3,
    GGMLQuantizationType.F16: 1e-3,
    GGMLQuantizationType.BF16: 1e-2,
    GGMLQuantizationType.Q8_0: 0.03,
    GGMLQuantizationType.Q6_K: 0.06,
    GGMLQuantizationType.Q5_K: 0.12,
    GGMLQuantizationType.Q5_0: 0.12,
    GGMLQuantizationType.Q5_1: 0.12,
}
_COARSEST = 0.35
_Array = NDArray[np.float32]


def key_faults(file: GgufFile, folder: Path) -> list[str]:
    """Keys of the file that are not those of the model in ``folder``."""
    config = load_config(folder)
    wanted = {**hyperparameters(config), **gguf_vocabulary(folder, int(config["vocab_size"]))}
    return [
        f"{key} is {_shown(file.fields.get(key), value)} and the model's is "
        f"{_shown(value, file.fields.get(key))}: {_meaning(key)}"
        for key, value in wanted.items()
        if not _same(file.fields.get(key), value)
    ]


def _meaning(key: str) -> str:
    """What a wrong key does; those of an architecture begin with its name."""
    return _MEANS.get(key) or _MEANS.get(key.partition(".")[2]) or "the engine reads it wrongly"


def weight_faults(file: GgufFile, folder: Path) -> list[str]:
    """Tensors of the file that rounding to their type does not explain, the worst first."""
    config = load_config(folder)
    found: list[tuple[float, str]] = []
    for name, factors in extra_tensors(config).items():
        if name not in file.names or not np.array_equal(file.tensor(name), factors):
            found.append(
                (math.inf, f"{name} is not the model's: rotary positions (RoPE) are wrong")
            )
    weights = Weights(folder, "np")
    for name in weights.names:
        target = gguf_name(name)
        if target not in file.names:
            found.append((math.inf, f"{target} is missing"))
            continue
        original = np.asarray(weights[name], dtype=np.float32)
        expected, actual = to_gguf_order(target, config)(original), file.tensor(target)
        error = _relative_error(actual, expected)
        if not error <= _ROUNDING.get(file.type_of(target), _COARSEST):
            cause = _cause(actual, expected, original)
            found.append((error, f"{target} is {error:.0%} off FP16: {cause}"))
    return [text for _, text in sorted(found, reverse=True)]


def _cause(actual: _Array, expected: _Array, original: _Array) -> str:
    if not np.isfinite(actual).all():
        return "it holds values that are not numbers"
    if _relative_error(actual, original) < _COARSEST:
        return "its rows were not reordered for the engine's rotary positions (unpermuted)"
    if actual.ndim > 1 and _rows_moved(actual, expected):
        return "its rows are there, but in other places (shuffled)"
    scale = float((actual * expected).sum() / (expected * expected).sum())
    if abs(scale) > 1e-6 and _relative_error(actual / scale, expected) < _COARSEST:
        return f"its weights are {scale:.2f} times FP16's (a wrong quantisation scale)"
    return "its weights are noisy, or another model's"


def _rows_moved(actual: _Array, expected: _Array) -> bool:
    """Whether the same rows stand in another order, judged by their lengths."""
    lengths = [np.sort(np.linalg.norm(rows, axis=1)) for rows in (actual, expected)]
    return _relative_error(lengths[0], lengths[1]) < 0.05


def _relative_error(actual: _Array, expected: _Array) -> float:
    scale = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(actual - expected)) / scale


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        return math.isclose(found, wanted, rel_tol=1e-6)  # the file holds 32 bits
    return bool(found == wanted)


def _shown(value: Any, other: Any) -> str:
    """A value in a few words; of lists and texts, where they begin to differ."""
    if value is None:
        return "missing"
    if isinstance(value, list | str) and isinstance(other, list | str):
        place = next(
            (i for i, (a, b) in enumerate(zip(value, other, strict=False)) if a != b),
            min(len(value), len(other)),
        )
        part = value[place : place + (24 if isinstance(value, str) else 1)]
        return f"{part!r} at {place}"
    if isinstance(value, list | str | Mapping):
        return f"there ({len(value)} long)"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def explain(path: Path, folder: Path) -> list[str]:
    """All that is wrong with a file: keys first, because they are the likelier slip."""
    file = GgufFile(path)
    return [*_limited(key_faults(file, folder)), *_limited(weight_faults(file, folder))]


def _limited(faults: list[str], most: int = 3) -> Iterator[str]:
    yield from faults[:most]
    if len(faults) > most:
        yield f"and {len(faults) - most} more like it"
