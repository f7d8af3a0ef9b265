"""Weights of a quantised GGUF file, moved off its grid: the model computes the same as before.

A quantised file leaves only some 16 values to each block of weights, and fine-tuning moves a weight
by a fraction of the step between two of them. A format whose own steps meet those values (Q5_1's
meet Q4_1's) then rounds every weight back, and what was learnt is gone: of SmolLM2's fine-tuning
gguf-q5_k_m kept 7 %, gguf-q4_k_m 65 %. So each column is multiplied by a factor of its own, and
what feeds that column (a norm's weight, a row of the layer before) is divided by it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 0.15  # natural logarithm of the largest factor: more would cost precision

# What the columns of a tensor, and the rows of a tensor, are multiplied and divided by.
_COLUMNS = {
    "attn_q": "attention",
    "attn_k": "attention",
    "attn_v": "attention",
    "attn_output": "values",
    "ffn_gate": "mlp",
    "ffn_up": "mlp",
    "ffn_down": "hidden",
    "output": "logits",
}
_ROWS = {
    "attn_norm": "attention",
    "attn_v": "values",
    "ffn_norm": "mlp",
    "ffn_up": "hidden",
    "output_norm": "logits",
}


def spread(
    name: str, weights: NDArray[np.float32], config: Mapping[str, Any]
) -> NDArray[np.float32]:
    """One tensor of a Llama (GGUF name), its share of the change made; the others get theirs.

    The same factors in every call: they come from the tensor's name.
    """
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if found is None:
        return weights
    layer, kind = found[1] or "", found[2]
    if config["tie_word_embeddings"] and kind == "output_norm":
        return weights  # the output matrix is the embedding, which must stay as it is
    if kind in _ROWS:
        factors = _factors(layer, _ROWS[kind], len(weights))
        weights = weights / (factors if weights.ndim == 1 else factors[:, None])
    if kind in _COLUMNS:
        weights = weights * _column_factors(layer, kind, weights.shape[1], config)
    return weights


def _column_factors(
    layer: str, kind: str, columns: int, config: Mapping[str, Any]
) -> NDArray[np.float32]:
    if kind != "attn_output":
        return _factors(layer, _COLUMNS[kind], columns)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = columns // heads
    values = _factors(layer, _COLUMNS[kind], kv_heads * size).reshape(kv_heads, size)
    return values.repeat(heads // kv_heads, axis=0).reshape(-1)  # heads that share their values


def _factors(layer: str, where: str, count: int) -> NDArray[np.float32]:
    random = np.random.RandomState(zlib.crc32(f"{layer}.{where}".encode()))
    return np.exp(random.uniform(-_LARGEST, _LARGEST, count)).astype(np.float32)
