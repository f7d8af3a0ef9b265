"""Two benches beside each other: other models, another machine, another day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from housecall.bench.cells import NONE
from housecall.bench.report import Figure, Model, Report
from housecall.bench.tables import Table


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure of one model in both benches.

    ``differs`` None: a single value, so nobody knows how much it varies.
    """

    model: str
    figure: str
    ours: float
    theirs: float
    differs: bool | None

    @property
    def ratio(self) -> float | None:
        """Ours by theirs; None for nothing by nothing."""
        return self.ours / self.theirs if self.theirs else None


def compare(ours: Report, theirs: Report) -> list[Pair]:
    """All figures that both have, of models with the same name.

    The two were not measured in the same rounds, so no interval can be had: where the ranges of all
    rounds overlap, the difference is taken for noise.
    """
    pairs = []
    for model in ours.models:
        other = theirs.model(model.name)
        if other is not None:
            pairs += list(_pairs(model, other))
    return pairs


def _pairs(a: Model, b: Model) -> Iterator[Pair]:
    if a.speed and b.speed:
        for name in ("tokens_per_second", "prompt_tokens_per_second", "first_token_seconds"):
            x, y = getattr(a.speed, name), getattr(b.speed, name)
            yield Pair(a.name, name, x.median, y.median, _apart(x, y))
        p, q = a.speed.latency_seconds, b.speed.latency_seconds
        yield Pair(a.name, "latency_seconds", p.p50, q.p50, None)
    for name in ("peak_memory_bytes", "bytes"):
        x, y = getattr(a, name), getattr(b, name)
        if x is not None and y is not None:
            yield Pair(a.name, name, x, y, x != y)
    if a.quality and b.quality:
        x, y = a.quality, b.quality
        (low, high), (other_low, other_high) = x.loss_interval, y.loss_interval
        yield Pair(a.name, "loss", x.loss, y.loss, low > other_high or high < other_low)


def _apart(x: Figure, y: Figure) -> bool | None:
    if min(x.count, y.count) < 2:
        return None
    return x.low > y.high or x.high < y.low


def notes(ours: Report, theirs: Report) -> Iterator[str]:
    """Why the two may not be comparable."""
    a, b = ours.machine, theirs.machine
    if (a.processor, a.cores, a.threads) != (b.processor, b.cores, b.threads):
        yield f"different machines: {a.processor}, {a.threads} threads; {b.processor}, {b.threads}"
    for name in ("prompt_tokens", "new_tokens"):
        x, y = getattr(ours.plan, name), getattr(theirs.plan, name)
        if (max(x), min(x)) != (max(y), min(y)) if isinstance(x, list) else x != y:
            yield f"different {name.replace('_', ' ')}: {x} and {y}"
    for report in (ours, theirs):
        for warning in report.warnings:
            yield f"{report.run}: {warning}"


def table(ours: Report, theirs: Report) -> Table:
    """The pairs as a table."""
    rows = []
    for p in compare(ours, theirs):
        shown = "no difference" if p.differs is False and p.figure != "bytes" else _ratio(p)
        rows.append([p.model, _NAMES[p.figure], _value(p, p.ours), _value(p, p.theirs), shown])
    return Table(
        f"{ours.run} beside {theirs.run}",
        "Where the ranges of all rounds overlap there is no difference to report.",
        ("model", "figure", ours.run, theirs.run, "ratio"),
        rows,
    )


def as_json(ours: Report, theirs: Report) -> dict[str, Any]:
    """The same for programs."""
    return {
        "run": ours.run,
        "other": theirs.run,
        "notes": list(notes(ours, theirs)),
        "pairs": [
            {
                "model": p.model,
                "figure": p.figure,
                "run": p.ours,
                "other": p.theirs,
                "ratio": p.ratio,
                "differs": p.differs,
            }
            for p in compare(ours, theirs)
        ],
    }


_NAMES = {
    "tokens_per_second": "tokens/s",
    "prompt_tokens_per_second": "prompt tokens/s",
    "first_token_seconds": "first token, s",
    "latency_seconds": "latency p50, s",
    "peak_memory_bytes": "peak memory, MB",
    "bytes": "files, MB",
    "loss": "loss",
}


def _value(pair: Pair, value: float) -> str:
    if pair.figure in ("peak_memory_bytes", "bytes"):
        return f"{value / 1e6:.1f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(pair: Pair) -> str:
    return NONE if pair.ratio is None else f"{pair.ratio:.2f}x"
