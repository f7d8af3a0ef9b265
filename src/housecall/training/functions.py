"""The parts of a Llama layer with gradients written by hand, for frozen weights.

Autograd keeps what it may need and reads it in many passes over memory, which on a CPU costs as
much as the matrix products. These functions keep what the gradient of an *adapter* needs, and no
gradient of a frozen weight is ever computed. All activations are (tokens, features): conversations
lie one behind the other, without padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

Tensor = torch.Tensor

_QUERIES = 256
"""Rows of the attention matrix computed at once: what lies behind the diagonal is left out."""

_ROUND = 32
"""What sizes in the attention are rounded up to."""

_LOGITS = 256
"""Rows of logits that exist at once."""


def call(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """``function.apply``, which torch leaves without types."""
    result: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return result


class Frozen(Protocol):
    """A weight matrix (outputs, inputs) that is not trained."""

    def dense(self) -> Tensor:
        """The matrix, in the type that is computed in."""
        ...


class AdaptedProduct(torch.autograd.Function):
    """``x W' + b + scale * drop(x) A' B'`` (Hu et al. 2021, "LoRA", equation 3)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        frozen: Frozen,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        keep: Tensor | None,
    ) -> Tensor:
        """``x`` (tokens, inputs); ``down`` A (rank, inputs), ``up`` B (outputs, rank) in float32.

        ``keep`` is the dropout's mask, already divided by the share that is kept.
        """
        dropped = x if keep is None else x * keep
        small = dropped @ down.to(x.dtype).T
        y = F.linear(x, frozen.dense(), bias)
        y.addmm_(small, (up * scale).to(x.dtype).T)
        ctx.frozen, ctx.scale, ctx.keep = frozen, scale, keep
        ctx.save_for_backward(dropped, small, down, up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``down`` and ``up``."""
        (gy,) = grads
        dropped, small, down, up = ctx.saved_tensors
        g_small = gy @ (up * ctx.scale).to(gy.dtype)
        g_up = (gy.T @ small).float() * ctx.scale
        g_down = (g_small.T @ dropped).float()
        gx = None
        if ctx.needs_input_grad[0]:
            gx = gy @ ctx.frozen.dense()
            if ctx.keep is None:
                gx.addmm_(g_small, down.to(gy.dtype))
            else:
                gx += (g_small @ down.to(gy.dtype)) * ctx.keep
        return gx, None, None, g_down, g_up, None, None


class FrozenProduct(torch.autograd.Function):
    """``x W' + b`` for a layer without an adapter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Frozen, bias: Tensor | None) -> Tensor:
        """``x`` (tokens, inputs) to (tokens, outputs)."""
        ctx.frozen = frozen
        return F.linear(x, frozen.dense(), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of ``x``."""
        return grads[0] @ ctx.frozen.dense(), None, None


class RmsNorm(torch.autograd.Function):
    """``x / rms(x) * w`` (Zhang and Sennrich 2019), the mean taken in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """``x`` (tokens, features); ``weight`` (features,) is frozen."""
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of ``x``."""
        x, weight, inverse = ctx.saved_tensors
        g = (grads[0] * weight).float()
        normal = x.float().mul_(inverse)
        along = (g * normal).mean(-1, keepdim=True)
        return normal.mul_(-along).add_(g).mul_(inverse).to(x.dtype), None, None


class Rotate(torch.autograd.Function):
    """Rotary position embedding (Su et al. 2021) in the halves layout of transformers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """``x`` (tokens, heads, width); ``cosine`` and ``sine`` (tokens, 1, width / 2)."""
        ctx.save_for_backward(cosine, sine)
        return _rotated(x, cosine, sine)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of ``x``: rotated back."""
        cosine, sine = ctx.saved_tensors
        return _rotated(grads[0], cosine, -sine), None, None


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    half = first.shape[-1]
    torch.mul(first, cosine, out=out[..., :half]).addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=out[..., half:]).addcmul_(first, sine)
    return out


class CausalAttention(torch.autograd.Function):
    """Grouped-query attention within each conversation: none sees another.

    On a CPU, torch's own fused attention takes 2.3 times as long as this (eight conversations of
    256 tokens, forward and backward).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        """``q`` (tokens, heads, width), ``k`` and ``v`` (tokens, key heads, width)."""
        (heads, width), key_heads = q.shape[1:], k.shape[1]
        out = torch.empty_like(q)
        kept: list[Tensor] = []
        for block in _blocks(lengths):
            queries = _heads_first(q[block.rows], block.queries, 1 / math.sqrt(width))
            queries = queries.view(key_heads, -1, width)
            keys, values = (_heads_first(x[block.seen], block.keys) for x in (k, v))
            scores = queries @ keys.mT
            block.hide_what_comes_later(scores)
            share = torch.softmax(scores, dim=-1)
            attended = (share @ values).view(heads, block.queries, width)
            out[block.rows] = attended[:, : block.length].transpose(0, 1)
            kept += (queries, keys, values, share)
        ctx.lengths, ctx.shape = tuple(lengths), (len(q), heads, key_heads, width)
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``q``, ``k`` and ``v``."""
        tokens, heads, key_heads, width = ctx.shape
        gq = torch.empty_like(grads[0])
        gk, gv = (gq.new_zeros(tokens, key_heads, width) for _ in range(2))
        kept = iter(ctx.saved_tensors)
        for block in _blocks(ctx.lengths):
            queries, keys, values, share = (next(kept) for _ in range(4))
            g = _heads_first(grads[0][block.rows], block.queries).view(key_heads, -1, width)
            g_scores = torch._softmax_backward_data(g @ values.mT, share, -1, share.dtype)
            g_rows = (g_scores @ keys).view(heads, block.queries, width)[:, : block.length]
            torch.mul(g_rows.transpose(0, 1), 1 / math.sqrt(width), out=gq[block.rows])
            block.add_to_keys(gk, g_scores.mT @ queries)
            block.add_to_keys(gv, share.mT @ g)
        return gq, gk, gv, None


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries of one conversation, and the keys up to the last of them.

    ``queries`` and ``keys`` are sizes rounded up: the library that multiplies compiles a program
    for each shape that it meets, so there must not be one for each length of a conversation.
    """

    rows: slice
    seen: slice
    queries: int
    keys: int

    @property
    def length(self) -> int:
        """Queries that are real."""
        return int(self.rows.stop - self.rows.start)

    def add_to_keys(self, total: Tensor, part: Tensor) -> None:
        """Add gradients (key heads, keys, width) at the keys' places."""
        total[self.seen] += part[:, : self.seen.stop - self.seen.start].transpose(0, 1)

    def hide_what_comes_later(self, scores: Tensor) -> None:
        """The causal mask, in place; it covers the zeros behind the keys as well."""
        behind = self.rows.start - self.seen.start
        part = scores.view(len(scores), -1, self.queries, self.keys)[..., behind:]
        part += _mask(self.queries, part.shape[-1], part.dtype, part.device)


@lru_cache(maxsize=64)
def _mask(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Nothing on and before the diagonal, minus infinity behind it."""
    return torch.full((queries, keys), -math.inf, dtype=dtype, device=device).triu(1)


def _blocks(lengths: Sequence[int]) -> Iterator[_Block]:
    start = 0
    for length in lengths:
        for first in range(0, length, _QUERIES):
            last = min(first + _QUERIES, length)
            yield _Block(
                rows=slice(start + first, start + last),
                seen=slice(start, start + last),
                queries=_rounded(last - first),
                keys=_rounded(last),
            )
        start += length


def _rounded(size: int) -> int:
    return -(-size // _ROUND) * _ROUND


def _heads_first(x: Tensor, size: int, scale: float = 1.0) -> Tensor:
    """(tokens, heads, width) as (heads, size, width), scaled, with zeros at the end."""
    out = x.new_empty(x.shape[1], size, x.shape[2])
    torch.mul(x.transpose(0, 1), scale, out=out[:, : len(x)])
    out[:, len(x) :] = 0
    return out


class SwiGlu(torch.autograd.Function):
    """``silu(gate) * up`` (Shazeer 2020)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Both (tokens, features)."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of both."""
        gate, up = ctx.saved_tensors
        g_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return g_gate, F.silu(gate).mul_(grads[0])


class LabelLoss(torch.autograd.Function):
    """Cross entropy summed over labels, logits made for a few rows at a time.

    The gradient is computed with the loss (as in Hsu et al. 2024, "Liger Kernel"), so the logits,
    the largest thing of a small model, never exist as a whole.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """``hidden`` (labels, features), ``head`` (vocabulary, features), ``targets`` (labels,)."""
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), _LOGITS):
            rows = slice(start, start + _LOGITS)
            # In the type of the activations: for bfloat16 that moves a batch's mean by about 4e-5.
            share = torch.softmax(hidden[rows] @ head.T, dim=-1)
            place = torch.arange(len(share), device=share.device), targets[rows]
            total -= share[place].float().clamp_min(1e-38).log().sum()
            share[place] -= 1
            gradient[rows] = share @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of ``hidden``."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None
