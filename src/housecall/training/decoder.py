"""A decoder of the Llama family with frozen weights and trainable adapters.

Computes what transformers and PEFT compute (``tests/training`` holds it against them) for
conversations that lie behind each other without padding; see ``functions`` for why it is our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from housecall.causal_lm import quiet_libraries, token_losses
from housecall.chat_template import IGNORE
from housecall.config import TrainConfig
from housecall.errors import ArtifactError
from housecall.progress import bar
from housecall.steps.base import read_json
from housecall.training.attention import CausalAttention
from housecall.training.batches import Packed
from housecall.training.functions import (
    AdaptedProduct,
    Frozen,
    FrozenProduct,
    LabelLoss,
    RmsNorm,
    Rotate,
    SwiGlu,
    call,
)
from housecall.training.weights import freeze
from housecall.weights import Weights

Tensor = torch.Tensor

_LINEAR = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
"""In the order of ``Layer``."""


class Adapter:
    """A low-rank pair: ``down`` A (rank, inputs) starts random, ``up`` B (outputs, rank) zero."""

    def __init__(
        self, config: TrainConfig, outputs: int, inputs: int, device: torch.device
    ) -> None:
        self.scale = config.lora_alpha / config.lora_rank
        self._dropout = config.lora_dropout
        down = torch.empty(config.lora_rank, inputs)
        torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as PEFT starts it
        self.down = torch.nn.Parameter(down.to(device))
        self.up = torch.nn.Parameter(torch.zeros(outputs, config.lora_rank, device=device))

    def mask(self, x: Tensor) -> Tensor | None:
        """What dropout keeps of ``x``, divided by the share that it keeps; None for all."""
        if not self._dropout:
            return None
        kept = 1 - self._dropout
        return torch.empty_like(x).bernoulli_(kept).div_(kept)


@dataclass(frozen=True, slots=True)
class Linear:
    """A frozen product with or without an adapter."""

    frozen: Frozen
    bias: Tensor | None
    adapter: Adapter | None

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        """(tokens, inputs) to (tokens, outputs)."""
        adapter = self.adapter
        if adapter is None:
            return call(FrozenProduct, x, self.frozen, self.bias)
        keep = adapter.mask(x) if training else None
        pair = adapter.down, adapter.up, adapter.scale
        return call(AdaptedProduct, x, self.frozen, self.bias, *pair, keep)


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: attention behind the norm ``before``, a gated feed-forward behind ``between``."""

    before: Tensor
    between: Tensor
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    gate: Linear
    up: Linear
    down: Linear


class Decoder:
    """The model under training; ``training`` switches dropout."""

    def __init__(
        self, folder: Path, config: TrainConfig, dtype: torch.dtype, device: torch.device
    ) -> None:
        quiet_libraries()
        from transformers import AutoConfig
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        settings = read_json(folder / "config.json")
        self.training = False
        self.adapters: dict[str, Adapter] = {}
        self._config, self._dtype, self._device = config, dtype, device
        self._heads = int(settings["num_attention_heads"])
        self._key_heads = int(settings.get("num_key_value_heads") or self._heads)
        self._epsilon = float(settings["rms_norm_eps"])
        self._rotary = LlamaRotaryEmbedding(AutoConfig.from_pretrained(folder)).to(device)
        torch.manual_seed(config.seed)
        weights = Weights(folder)
        self._embedding = self._tensor(weights, "model.embed_tokens.weight")
        self._norm = self._tensor(weights, "model.norm.weight")
        self._head = (
            self._tensor(weights, "lm_head.weight")
            if "lm_head.weight" in weights
            else self._embedding
        )
        count = int(settings["num_hidden_layers"])
        self.parameters_in_base = sum(math.prod(weights.shape(n)) for n in weights.names)
        with bar("load", count) as progress:
            self._layers = list(self._load(weights, count, progress.advance))
        if not self.adapters:
            raise ArtifactError(f"{folder}: has none of the layers {', '.join(config.layers)}")

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """What is trained, always in the same order."""
        for adapter in self.adapters.values():
            yield adapter.down
            yield adapter.up

    def loss(self, batch: Packed) -> Tensor:
        """Cross entropy summed over the labels, in nats, with gradients."""
        hidden, targets = self._at_labels(batch)
        return call(LabelLoss, hidden, self._head, targets)

    @torch.no_grad()
    def token_losses(self, batch: Packed) -> Tensor:
        """Cross entropy of each label (labels,) in nats, computed in float32, without gradients."""
        hidden, targets = self._at_labels(batch)
        losses = []
        for start in range(0, len(targets), 256):
            rows = slice(start, start + 256)
            losses.append(token_losses(hidden[rows] @ self._head.T, targets[rows]))
        return torch.cat(losses)

    def _at_labels(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """Hidden states (labels, features) before the head, and their targets."""
        batch = batch.to(self._device)
        wanted = batch.targets != IGNORE
        x = self._embedding[batch.ids]
        rotation = self._rotation(batch)
        for layer in self._layers:
            if self._config.gradient_checkpointing and self.training:
                x = checkpoint(self._block, layer, x, rotation, batch.lengths, use_reentrant=False)
            else:
                x = self._block(layer, x, rotation, batch.lengths)
        normal: Tensor = call(RmsNorm, x[wanted], self._norm, self._epsilon)
        return normal, batch.targets[wanted]

    def _block(
        self, layer: Layer, x: Tensor, rotation: tuple[Tensor, Tensor], lengths: tuple[int, ...]
    ) -> Tensor:
        normal = call(RmsNorm, x, layer.before, self._epsilon)
        q, k, v = (part(normal, self.training) for part in (layer.q, layer.k, layer.v))
        q, k, v = (
            part.view(len(x), heads, -1)
            for part, heads in ((q, self._heads), (k, self._key_heads), (v, self._key_heads))
        )
        q, k = call(Rotate, q, *rotation), call(Rotate, k, *rotation)
        attended = call(CausalAttention, q, k, v, lengths).view(len(x), -1)
        x = x + layer.o(attended, self.training)
        normal = call(RmsNorm, x, layer.between, self._epsilon)
        gated = call(SwiGlu, layer.gate(normal, self.training), layer.up(normal, self.training))
        return x + layer.down(gated, self.training)

    def _rotation(self, batch: Packed) -> tuple[Tensor, Tensor]:
        """Cosines and sines (tokens, 1, width / 2) of each position in its conversation."""
        positions = torch.cat([torch.arange(length) for length in batch.lengths])
        like = torch.empty(0, dtype=self._dtype, device=self._device)
        cosine, sine = self._rotary(like, positions[None].to(self._device))
        half = cosine.shape[-1] // 2
        return cosine[0, :, None, :half].contiguous(), sine[0, :, None, :half].contiguous()

    def _load(self, weights: Weights, count: int, done: Any) -> Iterator[Layer]:
        for i in range(count):
            prefix = f"model.layers.{i}"
            linear = {name: self._linear(weights, f"{prefix}.{name}") for name in _LINEAR}
            yield Layer(
                self._tensor(weights, f"{prefix}.input_layernorm.weight"),
                self._tensor(weights, f"{prefix}.post_attention_layernorm.weight"),
                *linear.values(),
            )
            done()

    def _linear(self, weights: Weights, name: str) -> Linear:
        matrix = self._tensor(weights, f"{name}.weight")
        bias = f"{name}.bias"
        if name.rpartition(".")[2] in self._config.layers:
            outputs, inputs = matrix.shape
            self.adapters[name] = Adapter(self._config, outputs, inputs, self._device)
        return Linear(
            freeze(matrix, self._config.quantization),
            self._tensor(weights, bias) if bias in weights else None,
            self.adapters.get(name),
        )

    def _tensor(self, weights: Weights, name: str) -> Tensor:
        tensor: Tensor = weights[name].to(self._device, self._dtype)
        return tensor
