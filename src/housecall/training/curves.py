"""The course of a training as a picture, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from housecall.plots import new_figure, save_figure


def draw(history: Sequence[Mapping[str, float]], loss_before: float | None, folder: Path) -> None:
    """``loss.png`` and ``loss.svg``: training loss of each step, loss on held-out rows."""
    figure, axes = new_figure()
    steps = [entry["step"] for entry in history]
    losses = [entry["loss"] for entry in history]
    axes.plot(steps, losses, linewidth=1, alpha=0.5, label="training")
    axes.plot(steps, _smooth(losses), color="C0", label="training, smoothed")
    judged = [(e["step"], e["held_out_loss"]) for e in history if "held_out_loss" in e]
    if loss_before is not None:
        judged.insert(0, (0, loss_before))
    at, values = zip(*judged, strict=True)
    axes.plot(at, values, "o-", color="C1", label="held-out rows")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.set_title("Fine-tuning", loc="left")
    axes.legend()
    save_figure(figure, folder / "loss")


def _smooth(values: Sequence[float], share: float = 0.8) -> list[float]:
    """Exponential moving average without the bias of its start."""
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total = share * total + (1 - share) * value
        weight = share * weight + (1 - share)
        smooth.append(total / weight)
    return smooth
