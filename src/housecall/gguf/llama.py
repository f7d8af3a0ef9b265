"""The Llama family in GGUF: names of tensors, hyperparameters, and the order of rotary weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from housecall.errors import ArtifactError
from housecall.gguf.mixture import ModelShape

ARCHITECTURES = ("LlamaForCausalLM",)

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

    Raises ArtifactError for a tensor that no Llama has.
    """
    if name in _OUTER:
        return _OUTER[name]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if found is None or found[2] not in _INNER:
        raise ArtifactError(f"tensor {name}: not one of a Llama; {_OTHER_ARCHITECTURE}")
    return f"blk.{found[1]}.{_INNER[found[2]]}.weight"


def hf_name(name: str) -> str:
    """The other way. Raises ArtifactError for a tensor that no Llama has."""
    if name in _OUTER_BACK:
        return _OUTER_BACK[name]
    found = re.fullmatch(r"blk\.(\d+)\.(.+)\.weight", name)
    if found is None or found[2] not in _INNER_BACK:
        raise ArtifactError(f"tensor {name}: not one of a Llama; {_OTHER_ARCHITECTURE}")
    return f"model.layers.{found[1]}.{_INNER_BACK[found[2]]}.weight"


_OTHER_ARCHITECTURE = (
    "convert it with llama.cpp's convert_hf_to_gguf.py and pass the file to  housecall serve"
)


def check_architecture(config: Mapping[str, Any], where: str) -> None:
    """Raises ArtifactError unless the config is of a model that can be converted here."""
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise ArtifactError(
            f"{where}: architecture {architecture} is not supported "
            f"(only {', '.join(ARCHITECTURES)}); {_OTHER_ARCHITECTURE}"
        )
    parameters = rope_parameters(config)
    scaling = parameters.get("rope_type") or parameters.get("type") or "default"
    if scaling != "default":
        raise ArtifactError(
            f"{where}: rope scaling {scaling!r} is not supported; {_OTHER_ARCHITECTURE}"
        )


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


def hyperparameters(config: Mapping[str, Any]) -> dict[str, int | float]:
    """``llama.*`` keys of a config.json, as the official converter writes them."""
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    head_dim = config.get("head_dim")
    keys: dict[str, int | float] = {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden,
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "rope.freq_base": float(rope_parameters(config)["rope_theta"]),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "vocab_size": int(config["vocab_size"]),
        "rope.dimension_count": int(head_dim or hidden // heads),
    }
    if head_dim:
        keys["attention.key_length"] = keys["attention.value_length"] = int(head_dim)
    return {f"llama.{key}": value for key, value in keys.items()}


def hf_config(fields: Mapping[str, Any], tied_embeddings: bool) -> dict[str, Any]:
    """A config.json from the ``llama.*`` keys of a GGUF file.

    Raises ArtifactError for another architecture or a key that is missing.
    """
    if fields.get("general.architecture") != "llama":
        name = fields.get("general.architecture")
        raise ArtifactError(f"architecture {name!r} is not supported as a base (only llama)")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ArtifactError(f"rope scaling {scaling!r} is not supported in a base")
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
            "tie_word_embeddings": tied_embeddings,
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
    if name.endswith("attn_q.weight"):
        return int(config["num_attention_heads"])
    if name.endswith("attn_k.weight"):
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return None


def _swap(tensor: Any, heads: int, a: int, b: int) -> Any:
    return tensor.reshape(heads, a, b, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
