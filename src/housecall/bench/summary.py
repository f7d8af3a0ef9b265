"""From visits to the report: medians over all rounds, shares of the limits, differences."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from housecall.bench.base import Subject, Visit, Work
from housecall.bench.report import (
    Batch,
    Comparison,
    Figure,
    Letters,
    Limits,
    Model,
    Percentiles,
    Quality,
    Speed,
    Verdict,
)
from housecall.bench.statistics import paired_ratio, percentile, spread
from housecall.checks.statistics import wilson

_ENOUGH_FOR_P99 = 100
_ENOUGH_ROUNDS = 3
_BUSY = 0.1
TITLES = {
    "base": "base, FP16",
    "fp16": "fine-tuned, FP16",
    "int8": "fine-tuned, INT8",
    "int4": "fine-tuned, INT4 (NF4)",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """All visits of a model, by round, or why there are none."""

    subject: Subject
    visits: Sequence[Visit]
    error: str | None
    quality: Quality | None


def model_row(
    measured: Measured, work: Work, limits: Limits | None, flops_per_token: int | None
) -> Model:
    """A model's row."""
    subject, visits = measured.subject, measured.visits
    first = visits[0] if visits else None
    return Model(
        name=subject.name,
        title=TITLES.get(subject.name, subject.name),
        error=measured.error,
        bytes=subject.bytes,
        engine=first.engine if first else None,
        settings=first.settings if first else None,
        computes_in=first.computes_in if first else None,
        peak_memory_bytes=_most([v.peak_memory_bytes for v in visits]),
        peak_gpu_bytes=_most([v.peak_gpu_bytes for v in visits]),
        token_bytes=first.token_bytes if first else None,
        speed=_speed(visits, limits, flops_per_token) if first and first.streamed else None,
        quality=measured.quality,
        letters=_letters(visits, work),
        answers=next((v.answers for v in visits if v.answers), None),
    )


def _speed(visits: Sequence[Visit], limits: Limits | None, flops_per_token: int | None) -> Speed:
    answers = [s for v in visits for s in v.streamed]
    rates = spread([s.rate for s in answers])
    prompts = spread([s.prompt_tokens / s.arrivals[0] for s in answers])
    gaps = [b - a for s in answers for a, b in zip(s.arrivals, s.arrivals[1:], strict=False)]
    loads = [v.load_seconds for v in visits if v.load_seconds is not None]
    token_bytes = visits[0].token_bytes
    bandwidth = compute = None
    if limits and token_bytes:
        bandwidth = rates.median * token_bytes / limits.read_bytes_per_second
    if limits and flops_per_token and token_bytes:
        best = max(limits.float32_flops, limits.bfloat16_flops)
        compute = prompts.median * flops_per_token / best
    return Speed(
        load_seconds=_figure(loads) if loads else None,
        prompt_tokens_per_second=Figure(**asdict(prompts)),
        first_token_seconds=_figure([s.arrivals[0] for s in answers]),
        tokens_per_second=Figure(**asdict(rates)),
        latency_seconds=_percentiles([w.seconds for v in visits for w in v.whole]),
        between_tokens_seconds=_percentiles(gaps) if gaps else None,
        batches=_batches(visits),
        bandwidth_share=bandwidth,
        compute_share=compute,
        harness_overhead=_overhead(visits),
    )


def _batches(visits: Sequence[Visit]) -> list[Batch]:
    sizes = [together.size for together in visits[0].together]
    found = []
    for place, size in enumerate(sizes):
        of_size = [v.together[place] for v in visits]
        found.append(
            Batch(
                size=size,
                tokens_per_second=_figure([t.tokens / t.seconds for t in of_size]),
                seconds=_figure([t.seconds for t in of_size]),
            )
        )
    return found


def _overhead(visits: Sequence[Visit]) -> float | None:
    """By how much decoding, as we time it, takes longer than the engine says it took."""
    shares = [
        (s.arrivals[-1] - s.arrivals[0]) / s.engine_seconds - 1
        for v in visits
        for s in v.streamed
        if s.engine_seconds
    ]
    return statistics.median(shares) if shares else None


def _letters(visits: Sequence[Visit], work: Work) -> Letters | None:
    chosen = next((v.letters for v in visits if v.letters), None)
    if chosen is None:
        return None
    right = sum(c == q.answer for c, q in zip(chosen, work.letters, strict=True))
    count = len(work.letters)
    return Letters(
        right=right, questions=count, accuracy=right / count, interval=wilson(right, count)
    )


def comparisons(measured: Sequence[Measured], reference: str) -> Iterator[Comparison]:
    """Every model against ``reference``, in the three figures that people compare."""
    found = {m.subject.name: m.visits for m in measured if m.visits}
    if reference not in found:
        return
    for name, visits in found.items():
        if name == reference:
            continue
        # A round counts only where both were visited in it.
        for figure, of_round in _FIGURES.items():
            pairs = list(zip(visits, found[reference], strict=False))
            ours, theirs = [of_round(a) for a, _ in pairs], [of_round(b) for _, b in pairs]
            ratio = paired_ratio(ours, theirs)
            verdict: Verdict = "no difference"
            if len(pairs) < _ENOUGH_ROUNDS:
                verdict = "not enough rounds"
            elif ratio.differs:
                verdict = "higher" if ratio.ratio > 1 else "lower"
            yield Comparison(
                figure=figure,  # type: ignore[arg-type]
                model=name,
                other=reference,
                ratio=ratio.ratio,
                interval=ratio.interval if len(pairs) >= _ENOUGH_ROUNDS else None,
                verdict=verdict,
            )


_FIGURES: Mapping[str, Callable[[Visit], float]] = {
    "tokens_per_second": lambda v: statistics.median(s.rate for s in v.streamed),
    "prompt_tokens_per_second": lambda v: statistics.median(
        s.prompt_tokens / s.arrivals[0] for s in v.streamed
    ),
    "latency_seconds": lambda v: statistics.median(w.seconds for w in v.whole),
}


def busy(measured: Sequence[Measured]) -> Figure | None:
    """How much of the machine other programs took, over all visits."""
    shares = [v.busy for m in measured for v in m.visits if v.busy is not None]
    return _figure(shares) if shares else None


def warnings(
    measured: Sequence[Measured], load: Figure | None, limits: Limits | None, rounds: int
) -> Iterator[str]:
    """What a reader must know before the figures."""
    if load and load.high > _BUSY:
        yield (
            f"Other programs were busy on this machine: they took {load.median:.0%} of its cores "
            f"in the median and {load.high:.0%} at worst. Times are longer than they need be, and "
            "only ratios within this report mean something. Measure again on a quiet machine."
        )
    if rounds < _ENOUGH_ROUNDS:
        yield (
            f"{rounds} round{'s' if rounds > 1 else ''}: too few to tell a small difference from "
            "noise. A full bench has five."
        )
    for m in measured:
        if m.error:
            yield f"{m.subject.name} was not measured: {m.error}"
        rates = [s.rate for v in m.visits for s in v.streamed]
        size = m.visits[0].token_bytes if m.visits else None
        if limits and rates and size:
            share = statistics.median(rates) * size / limits.read_bytes_per_second
            if share > 1:
                yield (
                    f"{m.subject.name} reads its weights faster ({share:.0%}) than memory was "
                    "measured to be: they fit the processor's cache, or the machine was slower "
                    "when memory was measured."
                )


def _figure(values: Sequence[float]) -> Figure:
    return Figure(**asdict(spread(values)))


def _percentiles(values: Sequence[float]) -> Percentiles:
    return Percentiles(
        p50=percentile(values, 0.5),
        p95=percentile(values, 0.95),
        p99=percentile(values, 0.99) if len(values) >= _ENOUGH_FOR_P99 else None,
        count=len(values),
    )


def _most(values: Sequence[int | None]) -> int | None:
    return max((v for v in values if v is not None), default=None)
