"""Which type each tensor gets, against counts and sizes of llama.cpp's own files."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from housecall.config import FORMATS
from housecall.gguf.files import TensorInfo
from housecall.gguf.llama import model_shape
from housecall.gguf.mixture import ModelShape, file_type, tensor_type, uses_importance

Type = GGMLQuantizationType
GGUF_FORMATS = [fmt for fmt in FORMATS if fmt.startswith("gguf-")]

SMOLLM2 = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
}
TINYLLAMA = {
    "num_hidden_layers": 22,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "tie_word_embeddings": False,
}


def dimensions(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """All tensors of a Llama by GGUF name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    narrow = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config["vocab_size"], hidden),
        "output_norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        found["output.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = {
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
            "attn_q": (hidden, hidden),
            "attn_k": (narrow, hidden),
            "attn_v": (narrow, hidden),
            "attn_output": (hidden, hidden),
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
        }
        found |= {f"blk.{layer}.{name}.weight": dims for name, dims in block.items()}
    return found


def types(config: dict[str, Any], fmt: str) -> dict[str, GGMLQuantizationType]:
    shape = model_shape(config)
    return {n: tensor_type(fmt, n, dims, shape)[0] for n, dims in dimensions(config).items()}


def megabytes(config: dict[str, Any], fmt: str) -> float:
    kinds = types(config, fmt)
    return sum(TensorInfo(n, d, kinds[n]).nbytes for n, d in dimensions(config).items()) / 1e6


def test_smollm2_q4_k_m_as_llama_quantize_makes_it() -> None:
    found = Counter(kind.name for kind in types(SMOLLM2, "gguf-q4_k_m").values())
    assert found == {"Q5_0": 166, "Q4_K": 16, "Q8_0": 15, "Q6_K": 14, "F32": 61}


# Files that llama-quantize made, without what their keys take (SmolLM2's vocabulary: 1.6 MB).
@pytest.mark.parametrize(
    ("config", "fmt", "expected"),
    [
        (SMOLLM2, "gguf-f16", 271 - 1.6),
        (SMOLLM2, "gguf-q8_0", 144.8 - 1.6),
        (SMOLLM2, "gguf-q6_k", 138.4 - 1.6),
        (SMOLLM2, "gguf-q5_k_m", 112.1 - 1.6),
        (SMOLLM2, "gguf-q4_k_m", 105.5 - 1.6),
        (SMOLLM2, "gguf-q4_0", 91.7 - 1.6),
        (SMOLLM2, "gguf-iq4_xs", 91.3 - 1.6),
        (TINYLLAMA, "gguf-f16", 2200),
        (TINYLLAMA, "gguf-q8_0", 1170),
        (TINYLLAMA, "gguf-q4_k_m", 668),
        (TINYLLAMA, "gguf-q4_0", 637),
    ],
)
def test_sizes(config: dict[str, Any], fmt: str, expected: float) -> None:
    assert megabytes(config, fmt) == pytest.approx(expected, rel=0.01)


# Worked out by hand from llama_tensor_get_type of llama.cpp at 007dbbf.
@pytest.mark.parametrize(
    ("config", "fmt", "expected"),
    [
        # 22 layers: 0 and 1, then each third (4, 7 ... 16), then 19, 20 and 21.
        (TINYLLAMA, "gguf-q4_k_m", {"Q4_K": 135, "Q6_K": 21, "F32": 45}),
        (TINYLLAMA, "gguf-q5_k_m", {"Q5_K": 135, "Q6_K": 21, "F32": 45}),
        (TINYLLAMA, "gguf-q6_k", {"Q6_K": 156, "F32": 45}),
        (TINYLLAMA, "gguf-q8_0", {"Q8_0": 156, "F32": 45}),
        (TINYLLAMA, "gguf-f16", {"F16": 156, "F32": 45}),
        # Eight query heads share a key and value: the value weights get more.
        (TINYLLAMA, "gguf-iq4_xs", {"IQ4_XS": 133, "Q5_K": 22, "Q6_K": 1, "F32": 45}),
        (TINYLLAMA, "gguf-q4_0", {"Q4_0": 153, "Q4_1": 2, "Q6_K": 1, "F32": 45}),
        # Rows of 576 do not divide by 256, those of 1536 do.
        (SMOLLM2, "gguf-q5_k_m", {"Q5_1": 166, "Q5_K": 16, "Q6_K": 14, "Q8_0": 15, "F32": 61}),
        (SMOLLM2, "gguf-q6_k", {"Q8_0": 181, "Q6_K": 30, "F32": 61}),
        (SMOLLM2, "gguf-iq4_xs", {"IQ4_NL": 180, "IQ4_XS": 30, "Q8_0": 1, "F32": 61}),
        (SMOLLM2, "gguf-q4_0", {"Q4_0": 207, "Q4_1": 3, "Q8_0": 1, "F32": 61}),
    ],
)
def test_histograms(config: dict[str, Any], fmt: str, expected: dict[str, int]) -> None:
    assert Counter(kind.name for kind in types(config, fmt).values()) == expected


def test_a_fallback_names_what_was_wanted() -> None:
    shape = model_shape(SMOLLM2)
    assert tensor_type("gguf-q4_k_m", "blk.9.attn_q.weight", (576, 576), shape) == (
        Type.Q5_0,
        Type.Q4_K,
    )
    # llama.cpp asks for Q8_0 at once where the format's own type does not fit ...
    embedding = "token_embd.weight", (49_152, 576), shape
    assert tensor_type("gguf-q4_k_m", *embedding) == (Type.Q8_0, None)
    # ... and Q4_0 fits, so that Q6_K is wanted, which does not.
    assert tensor_type("gguf-q4_0", *embedding) == (Type.Q8_0, Type.Q6_K)
    assert tensor_type("gguf-q4_k_m", "blk.0.attn_q.weight", (64, 40), shape) == (
        Type.F16,
        Type.Q4_K,
    )


def test_llama_70b_has_a_rule_of_its_own() -> None:
    shape = ModelShape(layers=80, heads_per_kv=8, tied_embeddings=False)
    found = [
        tensor_type("gguf-q4_k_m", f"blk.{layer}.attn_v.weight", (1024, 8192), shape)[0]
        for layer in range(80)
    ]
    assert Counter(found) == {Type.Q6_K: 40, Type.Q5_K: 40}


@pytest.mark.parametrize("fmt", GGUF_FORMATS)
def test_every_gguf_format_of_a_recipe_is_known(fmt: str) -> None:
    assert file_type(fmt).name == f"MOSTLY_{fmt.removeprefix('gguf-').upper()}"
    assert uses_importance(fmt) == (fmt not in ("gguf-f16", "gguf-q8_0"))
