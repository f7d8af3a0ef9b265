"""Pictures of a run, drawn with matplotlib, which comes with the extra ``train``."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housecall.errors import MissingPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "housecall",  # else ids in an SVG are random, and so is its hash
    "svg.fonttype": "none",
}
_PASSED, _REFUSED, _LINE = "#0072b2", "#d55e00", "#555555"  # told apart without red and green


def require_matplotlib() -> None:
    """Find out before minutes of work. Raises MissingPackage."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackage("pictures need matplotlib", "'housecall[train]'")


def new_figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    """An empty picture, in inches, and its axes. Raises MissingPackage."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def save_figure(figure: Figure, stem: Path) -> None:
    """Write ``stem.png`` and ``stem.svg``; the same picture has the same bytes."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure.savefig(stem.with_suffix(".png"), dpi=150)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def size_against_kl(
    variants: Sequence[Mapping[str, Any]], max_kl: float, promoted: str | None, stem: Path
) -> None:
    """Each variant's size (megabytes) and KL divergence from FP16 (nats a token, log scale).

    What has lost nothing has no place on a log scale: it stands hollow at the bottom.
    """
    figure, axes = new_figure()
    floor = _floor([v["kl_mean"] for v in variants if v["kl_mean"] > 0] or [max_kl])
    axes.set_yscale("log")
    axes.axhline(max_kl, color=_LINE, linestyle="--", linewidth=1)
    axes.annotate(
        f"gate: KL {max_kl:g}",
        (1, max_kl),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=_LINE,
    )
    labels = []
    for variant in variants:
        at = (variant["bytes"] / 1e6, max(variant["kl_mean"], floor))
        color = _PASSED if variant["passed"] else _REFUSED
        exact = variant["kl_mean"] <= 0
        axes.plot(
            *at,
            marker="o" if variant["passed"] else "X",
            color=color,
            markerfacecolor="none" if exact else color,
            markersize=7,
            linestyle="none",
        )
        best = variant["format"] == promoted
        if best:
            axes.plot(*at, marker="o", color=color, markerfacecolor="none", markersize=15)
        note = variant["format"] + (" (promoted)" if best else "") + (" (KL 0)" if exact else "")
        labels.append((note, at, best))
    axes.set_xlabel("size in MB")
    axes.set_ylabel("KL divergence from FP16, nats a token")
    axes.set_title("What each variant costs and what it loses", loc="left")
    axes.margins(x=0.25, y=0.12)
    place_labels(figure, axes, labels)
    save_figure(figure, stem)


# Where a label may stand beside its point, in points (1/72 inch), the best place first.
_BESIDE = (
    ((10, 0), "left", "center"),
    ((-10, 0), "right", "center"),
    ((0, 11), "center", "bottom"),
    ((0, -11), "center", "top"),
    ((10, 13), "left", "bottom"),
    ((10, -13), "left", "top"),
)


def place_labels(
    figure: Figure, axes: Axes, labels: Sequence[tuple[str, tuple[float, float], bool]]
) -> None:
    """Write each label at the first place where it covers no other label and no point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # only then is it known where a point lies on the picture
    points = axes.transData.transform([at for _, at, _ in labels])
    taken = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in points]
    for (text, at, bold), own in zip(labels, list(taken), strict=True):
        for offset, across, up in _BESIDE:
            label = axes.annotate(
                text,
                at,
                xytext=offset,
                textcoords="offset points",
                ha=across,
                va=up,
                fontweight="bold" if bold else "normal",
            )
            box = label.get_window_extent(canvas.get_renderer())
            if not any(box.overlaps(other) for other in taken if other is not own):
                break
            if offset != _BESIDE[-1][0]:
                label.remove()
        taken.append(box)


def _floor(values: Sequence[float]) -> float:
    """The power of ten below all values."""
    return 10.0 ** (math.ceil(math.log10(min(values))) - 1) / 2
