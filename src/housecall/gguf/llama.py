"""The Llama family in GGUF: names of tensors, hyperparameters, and the order of rotary weights.

Source: ``LlamaModel`` and ``Qwen2Model`` of llama.cpp's convert_hf_to_gguf.py, whose files ours
are compared with (tests/gguf_format/test_official.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housecall.errors import ArtifactError
from housecall.gguf.mixture import ModelShape

# What Hugging Face calls an architecture: what GGUF calls it.
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
}
# "dynamic" stretches positions only beyond max_position_embeddings, where no file of ours goes.
ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")
ROPE_FACTORS = "rope_freqs.weight"
"""A tensor that is computed from config.json, so a Hugging Face folder has none."""

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER_BACK = {gguf: hf for hf, gguf in _OUTER.items()}
_INNER_BACK = {gguf: hf for hf, gguf in _INNER.items()}


def gguf_name(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> ``blk.3.ffn_up.weight``.

    Raises ArtifactError for a tensor that no model of the family has.
    """
    if name in _OUTER:
        return _OUTER[name]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if found is None or found[2] not in _INNER:
        raise ArtifactError(f"tensor {name}: not one of a Llama; {_OTHER_ARCHITECTURE}")
    return f"blk.{found[1]}.{_INNER[found[2]]}.{found[3]}"


def hf_name(name: str) -> str:
    """The other way; ``ROPE_FACTORS`` keeps its name.

    Raises ArtifactError for a tensor that no model of the family has.
    """
    if name in _OUTER_BACK:
        return _OUTER_BACK[name]
    if name == ROPE_FACTORS:
        return name
    found = re.fullmatch(r"blk\.(\d+)\.(.+)\.(weight|bias)", name)
    if found is None or found[2] not in _INNER_BACK:
        raise ArtifactError(f"tensor {name}: not one of a Llama; {_OTHER_ARCHITECTURE}")
    return f"model.layers.{found[1]}.{_INNER_BACK[found[2]]}.{found[3]}"


_OTHER_ARCHITECTURE = (
    "convert it with llama.cpp's convert_hf_to_gguf.py and run  housecall serve FILE.gguf"
)


def check_architecture(config: Mapping[str, Any], where: str) -> None:
    """Raises ArtifactError unless the config is of a model that can be converted here."""
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise ArtifactError(
            f"{where}: architecture {architecture} is not supported "
            f"(only {', '.join(ARCHITECTURES)}); {_OTHER_ARCHITECTURE}"
        )
    scaling = _rope_type(rope_parameters(config))
    if scaling not in ROPE_TYPES:
        raise ArtifactError(
            f"{where}: rope scaling {scaling!r} is not supported "
            f"(only {', '.join(ROPE_TYPES)}); {_OTHER_ARCHITECTURE}"
        )


def architecture(config: Mapping[str, Any]) -> str:
    """GGUF's name for the architecture of a config.json."""
    return ARCHITECTURES[config["architectures"][0]]


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings of a config.json, of transformers 5 (nested) or older (flat)."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    parameters.setdefault("rope_theta", config.get("rope_theta") or 10_000.0)
    return parameters


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """What ``mixture`` needs to know of a config.json."""
    heads = int(config["num_attention_heads"])
    return ModelShape(
        layers=int(config["num_hidden_layers"]),
        heads_per_kv=heads // int(config.get("num_key_value_heads") or heads),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture keys of a config.json, as the official converter writes them.

    Raises ArtifactError for a key that config.json lacks.
    """
    name = architecture(config)
    try:
        keys = _sizes(config, name)
    except KeyError as error:
        raise ArtifactError(f"config.json: the key {error} is missing") from None
    keys |= _rope_scaling(rope_parameters(config))
    return {"general.architecture": name, **{f"{name}.{k}": value for k, value in keys.items()}}


def _sizes(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    head_dim = config.get("head_dim")
    keys: dict[str, Any] = {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden,
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "rope.freq_base": float(rope_parameters(config)["rope_theta"]),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }
    if name == "llama":
        head_dim = head_dim or hidden // heads
        keys["vocab_size"] = int(config["vocab_size"])
        keys["rope.dimension_count"] = int(head_dim)
    if head_dim:
        keys["attention.key_length"] = keys["attention.value_length"] = int(head_dim)
    return keys


def _rope_type(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _rope_scaling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    kind, factor = _rope_type(parameters), parameters.get("factor")
    if kind not in ("linear", "yarn") or factor is None:
        return {}
    keys: dict[str, Any] = {"type": kind, "factor": float(factor)}
    if kind == "yarn":
        keys["original_context_length"] = int(parameters["original_max_position_embeddings"])
        keys |= {
            key: float(parameters[name])
            for name, key in _YARN.items()
            if parameters.get(name) is not None
        }
    return {f"rope.scaling.{key}": value for key, value in keys.items()}


_YARN = {
    "extrapolation_factor": "yarn_ext_factor",
    "attn_factor": "yarn_attn_factor",
    "attention_factor": "yarn_attn_factor",  # the newer name wins
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


def extra_tensors(config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Tensors that config.json stands for: by how much Llama 3 slows each rotary frequency.

    Source: section 3.2 of "The Llama 3 Herd of Models" and ``generate_extra_tensors``.
    """
    parameters = rope_parameters(config)
    if _rope_type(parameters) != "llama3":
        return {}
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    half = np.arange(0, size := int(config.get("head_dim") or hidden // heads), 2, dtype=np.float32)
    base = np.float32(parameters["rope_theta"])
    wavelengths = 2 * math.pi * base ** (half / np.float32(size))
    factor, low, high = (
        float(parameters.get(name, default))
        for name, default in (("factor", 8), ("low_freq_factor", 1), ("high_freq_factor", 4))
    )
    context = float(parameters.get("original_max_position_embeddings", 8192))
    smooth = (context / wavelengths - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    slowed = np.where(wavelengths > context / low, factor, blended)
    factors = np.where(wavelengths < context / high, 1.0, slowed)
    return {ROPE_FACTORS: factors.astype(np.float32)}


def hf_config(fields: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """A config.json from the ``llama.*`` keys of a GGUF file and the names of its tensors.

    Raises ArtifactError for another architecture or a key that is missing.
    """
    if fields.get("general.architecture") != "llama":
        name = fields.get("general.architecture")
        raise ArtifactError(
            f"architecture {name!r} is not supported as a GGUF base (only llama): "
            "give the model's Hugging Face folder as base.source instead"
        )
    scaling = "llama3" if ROPE_FACTORS in tensors else fields.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ArtifactError(
            f"rope scaling {scaling!r} is not supported in a GGUF base: "
            "give the model's Hugging Face folder as base.source instead"
        )
    try:
        heads = fields["llama.attention.head_count"]
        hidden = fields["llama.embedding_length"]
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(fields["tokenizer.ggml.tokens"]),
            "hidden_size": hidden,
            "intermediate_size": fields["llama.feed_forward_length"],
            "num_hidden_layers": fields["llama.block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
            "head_dim": fields.get("llama.rope.dimension_count", hidden // heads),
            "max_position_embeddings": fields["llama.context_length"],
            "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
            "rope_theta": fields.get("llama.rope.freq_base", 10_000.0),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": "output.weight" not in tensors,
            "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
            "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
            "torch_dtype": "float16",
        }
    except KeyError as error:
        raise ArtifactError(f"the key {error} is missing") from error


def to_gguf_order(name: str, config: Mapping[str, Any]) -> Callable[[Any], Any]:
    """How the rows of a tensor (GGUF name) move on the way into a GGUF file.

    Hugging Face rotates the first half of a head with the second, llama.cpp neighbours with each
    other, so the rows of query and key weights are interleaved (``permute`` in the converter).
    """
    heads = _rotary_heads(name, config)
    return (
        (lambda t: t) if heads is None else lambda t: _swap(t, heads, 2, t.shape[0] // heads // 2)
    )


def to_hf_order(name: str, config: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The way back of ``to_gguf_order``."""
    heads = _rotary_heads(name, config)
    return (
        (lambda t: t) if heads is None else lambda t: _swap(t, heads, t.shape[0] // heads // 2, 2)
    )


def _rotary_heads(name: str, config: Mapping[str, Any]) -> int | None:
    if architecture(config) != "llama":  # Qwen2 rotates halves in llama.cpp too
        return None
    if ".attn_q." in name:
        return int(config["num_attention_heads"])
    if ".attn_k." in name:
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return None


def _swap(tensor: Any, heads: int, a: int, b: int) -> Any:
    return tensor.reshape(heads, a, b, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
