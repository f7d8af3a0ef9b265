"""Which type each tensor gets in a GGUF format: llama.cpp's rules, restated.

Source: ``llama_tensor_get_type`` and its fallback in llama.cpp's ``src/llama-quant.cpp``, for
dense Llama-family models and the formats made here. Each K-quant block holds 256 weights of one
row; where a row's length does not divide by 256, llama.cpp falls back to a type with blocks of 32.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

Type = GGMLQuantizationType

_BASE_TYPE: dict[str, tuple[LlamaFileType, GGMLQuantizationType]] = {
    "gguf-f16": (LlamaFileType.MOSTLY_F16, Type.F16),
    "gguf-q8_0": (LlamaFileType.MOSTLY_Q8_0, Type.Q8_0),
    "gguf-q6_k": (LlamaFileType.MOSTLY_Q6_K, Type.Q6_K),
    "gguf-q5_k_m": (LlamaFileType.MOSTLY_Q5_K_M, Type.Q5_K),
    "gguf-q4_k_m": (LlamaFileType.MOSTLY_Q4_K_M, Type.Q4_K),
    "gguf-iq4_xs": (LlamaFileType.MOSTLY_IQ4_XS, Type.IQ4_XS),
    "gguf-q4_0": (LlamaFileType.MOSTLY_Q4_0, Type.Q4_0),
}

_FALLBACK = {
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
    Type.IQ4_XS: Type.IQ4_NL,
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the choice of types depends on. ``heads_per_kv``: query heads that share one KV head."""

    layers: int
    heads_per_kv: int
    tied_embeddings: bool


def file_type(fmt: str) -> LlamaFileType:
    """The number a file of this format carries in ``general.file_type``."""
    return _BASE_TYPE[fmt][0]


def uses_importance(fmt: str) -> bool:
    """True for every format below Q8_0."""
    return fmt not in ("gguf-f16", "gguf-q8_0")


def tensor_type(
    fmt: str, name: str, dims: tuple[int, ...], shape: ModelShape
) -> tuple[GGMLQuantizationType, GGMLQuantizationType | None]:
    """The type of one tensor, and the type it fell back from (None: it did not).

    ``name`` is the GGUF name, ``dims`` the shape as in torch (rows, row length).
    """
    if len(dims) < 2:
        return Type.F32, None
    base = _BASE_TYPE[fmt][1]
    if base == Type.F16:
        return Type.F16, None
    row = dims[-1]
    wanted = _wanted(fmt, base, name, row, shape)
    block, _ = GGML_QUANT_SIZES[wanted]
    if row % block == 0:
        return wanted, None
    fallback = _FALLBACK.get(wanted, Type.F16)
    if row % GGML_QUANT_SIZES[fallback][0] != 0:
        fallback = Type.F16
    return fallback, wanted


def _wanted(
    fmt: str, base: GGMLQuantizationType, name: str, row: int, shape: ModelShape
) -> GGMLQuantizationType:
    if name == "output.weight" or (name == "token_embd.weight" and shape.tied_embeddings):
        fits = row % GGML_QUANT_SIZES[base][0] == 0
        return Type.Q6_K if fits and base != Type.Q8_0 else Type.Q8_0
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    sensitive = _use_more_bits(layer, shape.layers)
    if name.endswith("attn_v.weight"):
        if fmt == "gguf-iq4_xs" and shape.heads_per_kv >= 4:
            return Type.Q5_K
        if fmt in ("gguf-q4_k_m", "gguf-q5_k_m") and sensitive:
            return Type.Q6_K
        if base == Type.Q4_K and shape.layers == 80 and shape.heads_per_kv > 1:
            return Type.Q5_K  # llama.cpp's rule for Llama 70B
    if name.endswith("ffn_down.weight"):
        if fmt in ("gguf-q4_k_m", "gguf-q5_k_m") and sensitive:
            return Type.Q6_K
        if fmt == "gguf-q4_0" and layer < shape.layers // 8:
            return Type.Q4_1  # only with an importance matrix, which is always there
    return base


def _use_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third one between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
