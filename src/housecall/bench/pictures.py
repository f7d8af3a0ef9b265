"""The report's pictures, as PNG for anyone and SVG for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from housecall.bench.report import Model, Report
from housecall.plots import new_figure, place_labels, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 5.0, 3.8  # inches; a phone still shows its text large enough to read
_FOLDER, _GGUF, _SERVER = "#3b8fd0", "#d9822b", "#2f9e77"
_LINES = ("-", "--", ":")
_MARKERS = ("o", "s", "^", "v", "D", "P", "X")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file name without its ending, and what it shows."""

    stem: str
    title: str


def draw_all(report: Report, folder: Path) -> list[Picture]:
    """Draw what there is something to draw of. Raises MissingPackage without matplotlib."""
    measured = [m for m in report.models if m.speed]
    drawn = []
    for picture, draw, models in (
        (Picture("size-loss", "Size against loss"), _size_loss, _with_loss(report.models)),
        (Picture("tokens", "New tokens a second, one stream"), _tokens, measured),
        (Picture("batches", "Latency over answers at once"), _batch_lines, measured),
        (Picture("memory", "Peak memory and size of files"), _memory, _with_memory(measured)),
    ):
        if not models or (draw is _batch_lines and len(report.plan.batches) < 2):
            continue
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        draw(axes, models)
        axes.set_title(picture.title, loc="left", fontsize=11)
        save_figure(figure, folder / picture.stem)
        drawn.append(picture)
    return drawn


def _size_loss(axes: Axes, models: Sequence[Model]) -> None:
    labels: list[tuple[str, tuple[float, float], bool]] = []
    for m in models:
        assert m.quality is not None
        assert m.bytes is not None
        at = (m.bytes / 1e6, m.quality.loss)
        labels.append((m.name.removeprefix("gguf-"), at, False))
        axes.plot(
            *at,
            marker="o" if m.quality.passed else "X",
            color=_color(m),
            markersize=7,
            linestyle="none",
        )
    axes.set_xlabel("size of its files in MB")
    axes.set_ylabel("loss on held-out answers, nats a token")
    axes.margins(x=0.2, y=0.15)
    figure = axes.get_figure(root=True)
    assert figure is not None
    place_labels(figure, axes, labels)


def _tokens(axes: Axes, models: Sequence[Model]) -> None:
    rows = list(reversed(models))
    for place, m in enumerate(rows):
        assert m.speed is not None
        rate = m.speed.tokens_per_second
        axes.barh(place, rate.median, color=_color(m), height=0.7)
        axes.plot([rate.low, rate.high], [place, place], color="#000000", linewidth=1)
        axes.annotate(
            f"{rate.median:.1f}",
            (max(rate.high, rate.median), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [m.name for m in rows], fontsize=8)
    axes.set_xlabel("tokens/s (line: lowest to highest)")
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")


def _batch_lines(axes: Axes, models: Sequence[Model]) -> None:
    for place, m in enumerate(models):
        assert m.speed is not None
        sizes = [b.size for b in m.speed.batches]
        axes.plot(
            sizes,
            [b.seconds.median for b in m.speed.batches],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=5,
            color=_color(m),
            linestyle=_LINES[place % len(_LINES)],
            linewidth=1.2,
            label=m.name,
        )
        axes.set_xticks(sizes)
    axes.set_xlabel("answers at once")
    axes.set_ylabel("seconds until all are there")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=2, frameon=False)


def _memory(axes: Axes, models: Sequence[Model]) -> None:
    rows = list(reversed(models))
    for place, m in enumerate(rows):
        axes.barh(place, (m.peak_memory_bytes or 0) / 1e6, color=_color(m), height=0.7, alpha=0.55)
        axes.barh(place, (m.bytes or 0) / 1e6, color=_color(m), height=0.35)
    axes.set_yticks(range(len(rows)), [m.name for m in rows], fontsize=8)
    axes.set_xlabel("MB (pale: peak memory of its process; full: files)")
    axes.grid(visible=False, axis="y")


def _color(model: Model) -> str:
    if model.engine == "transformers":
        return _FOLDER
    return _GGUF if model.engine == "llama.cpp" or model.engine is None else _SERVER


def _with_loss(models: Sequence[Model]) -> list[Model]:
    return [m for m in models if m.quality and m.bytes]


def _with_memory(models: Sequence[Model]) -> list[Model]:
    return [m for m in models if m.peak_memory_bytes]
