"""The parts of a Llama layer with gradients written by hand, for frozen weights.

Autograd keeps what it may need and reads it in many passes over memory, which on a CPU costs as
much as the matrix products. These functions keep what the gradient of an *adapter* needs, and no
gradient of a frozen weight is ever computed. All activations are (tokens, features): conversations
lie one behind the other, without padding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

Tensor = torch.Tensor

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
