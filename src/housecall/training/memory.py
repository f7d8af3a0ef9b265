"""How much memory a training will take, said before it starts and held while it runs."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from housecall.config import TrainConfig
from housecall.errors import HousecallError

_LIBRARIES = 700_000_000
"""Bytes of a process that has loaded torch, transformers and what they bring."""

_TEMPORARY = 1.15
"""What the allocator and short-lived results add. Both were chosen by four measured trainings of
SmolLM2 and TinyLlama's shape. The heap can grow past it between steps (see ``give_back``): SmolLM2
on long rows then peaks about a fifth higher, TinyLlama's shape does not (docs/results.md)."""


def needed(config: TrainConfig, base: Mapping[str, Any], longest: int, dtype: torch.dtype) -> int:
    """Peak bytes of training a model with this ``config.json`` on rows of at most ``longest``."""
    hidden, inner = int(base["hidden_size"]), int(base["intermediate_size"])
    heads = int(base["num_attention_heads"])
    key_heads = int(base.get("num_key_value_heads") or heads)
    width = int(base.get("head_dim") or hidden // heads)
    layers, vocabulary = int(base["num_hidden_layers"]), int(base["vocab_size"])
    size = dtype.itemsize
    q, kv = heads * width, key_heads * width
    shapes = {
        "q_proj": (q, hidden),
        "k_proj": (kv, hidden),
        "v_proj": (kv, hidden),
        "o_proj": (hidden, q),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }
    linear = sum(rows * columns for rows, columns in shapes.values())
    adapter = config.lora_rank * sum(sum(shapes[name]) for name in config.layers)
    a_weight = 0.516 if config.quantization == "nf4" else size
    tables = vocabulary * hidden * (1 if base.get("tie_word_embeddings") else 2)
    # What functions.py keeps of a token in a layer, and its shares of attention.
    tokens = max(config.micro_batch_tokens, longest)
    kept = 4 * hidden + 2 * q + 2 * kv + 3 * inner + heads * min(longest, tokens)
    at_once = hidden * layers + kept if config.gradient_checkpointing else kept * layers
    weights = tables * size + layers * linear * a_weight
    training = layers * adapter * 4 * 6  # weights, gradients, Adam's two, the best, a checkpoint
    logits = 2 * 256 * vocabulary * (size + 4)
    return int(_LIBRARIES + weights + training + _TEMPORARY * tokens * at_once * size + logits)


def check(config: TrainConfig, base: Mapping[str, Any], longest: int, device: torch.device) -> int:
    """Bytes that the training will need. Raises HousecallError when they are not there."""
    from housecall.causal_lm import training_dtype

    wanted = needed(config, base, longest, training_dtype(device, config.precision))
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    if wanted > free:
        smaller = max(256, config.micro_batch_tokens // 4)
        ways = [] if config.gradient_checkpointing else ["--set train.gradient_checkpointing=true"]
        if smaller < config.micro_batch_tokens:
            ways.append(f"--set train.micro_batch_tokens={smaller}")
        raise HousecallError(
            f"train: needs about {wanted / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            + (
                f"try {' or '.join(ways)}"
                if ways
                else "close other programs, or take a smaller base"
            )
        )
    return wanted


def give_back(limit: int) -> None:
    """Let the allocator return what it holds without use, when more than ``limit`` bytes are held.

    The steps of a training differ in their number of tokens, so their tensors never quite fit where
    the last ones were: glibc's heap had grown to 4.1 GB after 51 steps that needed 1.3 GB each
    (SmolLM2, ``benchmarks/train_vs_trl.py``). Other C libraries are left to themselves.
    """
    if platform.libc_ver()[0] == "glibc" and psutil.Process().memory_info().rss > limit:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
