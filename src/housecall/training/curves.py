"""The course of a training as a picture, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def draw(history: Sequence[Mapping[str, float]], loss_before: float | None, folder: Path) -> None:
    """``loss.png`` and ``loss.svg``: training loss of each step, loss on held-out rows."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    # Text as text and no date: the same training gives the same picture.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "housecall"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = [entry["step"] for entry in history]
        axes.plot(steps, [entry["loss"] for entry in history], lw=1, alpha=0.5, label="training")
        axes.plot(
            steps, _smooth([e["loss"] for e in history]), color="C0", label="training, smoothed"
        )
        judged = [(e["step"], e["held_out_loss"]) for e in history if "held_out_loss" in e]
        if loss_before is not None:
            judged.insert(0, (0, loss_before))
        axes.plot(*zip(*judged, strict=True), "o-", color="C1", label="held-out rows")
        axes.set(xlabel="step", ylabel="loss (nats a token)", title="Fine-tuning")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / "loss.png", dpi=120, metadata={"Software": None})
        figure.savefig(folder / "loss.svg", metadata={"Date": None})


def _smooth(values: Sequence[float], share: float = 0.8) -> list[float]:
    """Exponential moving average without the bias of its start."""
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total = share * total + (1 - share) * value
        weight = share * weight + (1 - share)
        smooth.append(total / weight)
    return smooth
