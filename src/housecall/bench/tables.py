"""The report's tables as text cells: the same ones on a terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from housecall.bench.cells import NONE, accuracy, median, range_of, scaled, share, with_range
from housecall.bench.report import Comparison, Model, Report


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a line on how to read it, the names of the columns, the rows."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def all_tables(report: Report) -> Iterator[Table]:
    """Every table, the one that most people want first."""
    measured = [m for m in report.models if m.speed]
    yield overview(report)
    if measured:
        yield _streaming(report, measured)
        if report.plan.batches:
            yield _batches(report, measured)
        yield _memory(measured)
        if report.limits:
            yield _limits(report, measured)
    yield _quality(report)
    if report.comparisons:
        yield differences(report)


def overview(report: Report) -> Table:
    """One row a model."""
    rows = []
    for m in report.models:
        if m.speed is None:
            rows.append([m.title, f"not measured: {m.error}", *[NONE] * 6])
            continue
        s = m.speed
        rows.append(
            [
                m.title,
                scaled(m.bytes, 1e6, ".1f"),
                median(s.load_seconds, ".2f"),
                f"{s.prompt_tokens_per_second.median:.0f}",
                f"{s.first_token_seconds.median * 1000:.0f}",
                with_range(s.tokens_per_second),
                against_reference(report, m),
                f"{s.latency_seconds.p50:.2f} / {s.latency_seconds.p95:.2f}",
            ]
        )
    tokens = range_of(report.plan.prompt_tokens)
    titles = {m.name: m.title for m in report.models}
    reference = titles[report.comparisons[0].other] if report.comparisons else "others"
    return Table(
        "All models",
        f"One stream, prompts of {tokens} tokens, {report.plan.new_tokens} new tokens, greedy, "
        f"{report.machine.threads} threads. Medians of {_many(report.plan.rounds, 'round')} of "
        f"{_many(report.plan.prompts, 'prompt')}; in brackets the lowest and the highest. "
        "Latency is of a whole answer.",
        (
            "model",
            "MB",
            "load s",
            "prompt tokens/s",
            "first token ms",
            "tokens/s",
            f"against {reference}",
            "latency s p50 / p95",
        ),
        rows,
    )


def in_short(report: Report) -> Table:
    """As much of it as a terminal has room for."""
    rows = []
    for m in report.models:
        if m.speed is None:
            rows.append([m.name, f"not measured: {m.error}"])
            continue
        found = [
            c for c in report.comparisons if c.model == m.name and c.figure == "tokens_per_second"
        ]
        against = NONE if not found else f"{found[0].ratio:.2f}x"
        rows.append(
            [
                m.name,
                scaled(m.bytes, 1e6, ".1f"),
                f"{m.speed.prompt_tokens_per_second.median:.0f}",
                f"{m.speed.first_token_seconds.median * 1000:.0f}",
                f"{m.speed.tokens_per_second.median:.1f}",
                "in the noise" if found and found[0].verdict == "no difference" else against,
                scaled(m.peak_memory_bytes, 1e6, ".0f"),
            ]
        )
    other = report.comparisons[0].other if report.comparisons else "others"
    return Table(
        f"{report.run} on {report.machine.threads} threads",
        "one stream; medians",
        (
            "model",
            "MB",
            "prompt tok/s",
            "first token ms",
            "tokens/s",
            f"of {other}",
            "memory MB",
        ),
        rows,
    )


def against_reference(report: Report, model: Model) -> str:
    """How a model's decoding compares, if at all."""
    if report.comparisons and model.name == report.comparisons[0].other:
        return "1"
    found = [
        c for c in report.comparisons if c.model == model.name and c.figure == "tokens_per_second"
    ]
    return verdict(found[0]) if found else NONE


def verdict(c: Comparison) -> str:
    """A ratio with its interval, or that there is no difference to speak of."""
    if c.interval is None:
        return f"{c.ratio:.2f}x (too few rounds)"
    interval = f"{c.interval[0]:.2f} to {c.interval[1]:.2f}"
    if c.verdict == "no difference":
        return f"no difference ({interval})"
    return f"{c.ratio:.2f}x ({interval})"


def _streaming(report: Report, models: Sequence[Model]) -> Table:
    rows = []
    for m in models:
        assert m.speed is not None
        gaps = m.speed.between_tokens_seconds
        overhead = m.speed.harness_overhead
        if gaps is None:
            rows.append([m.title, *[NONE] * 5])
            continue
        rows.append(
            [
                m.title,
                f"{gaps.p50 * 1000:.1f}",
                f"{gaps.p95 * 1000:.1f}",
                NONE if gaps.p99 is None else f"{gaps.p99 * 1000:.1f}",
                str(gaps.count),
                NONE if overhead is None else f"{overhead:+.2%}",
            ]
        )
    return Table(
        "Streaming: time between two tokens, ms",
        "p99 only from 100 gaps on. The last column: decoding as this harness timed it, against "
        "what the engine says of the same answers.",
        ("model", "p50", "p95", "p99", "gaps", "harness"),
        rows,
    )


def _batches(report: Report, models: Sequence[Model]) -> Table:
    rows = []
    for m in models:
        assert m.speed is not None
        rates = [with_range(b.tokens_per_second) for b in m.speed.batches]
        rows.append([m.title, *rates])
    return Table(
        "Batches: new tokens a second of all answers together",
        "From the first request to the last token, prompts included.",
        ("model", *(f"{size} at once" for size in report.plan.batches)),
        rows,
    )


def _memory(models: Sequence[Model]) -> Table:
    rows = [
        [
            m.title,
            m.engine or NONE,
            m.computes_in or NONE,
            scaled(m.bytes, 1e6, ".1f"),
            scaled(m.peak_memory_bytes, 1e6, ".0f"),
            "0 (no GPU used)" if m.peak_gpu_bytes == 0 else scaled(m.peak_gpu_bytes, 1e6, ".0f"),
        ]
        for m in models
    ]
    return Table(
        "Size and memory",
        "Peak resident memory of the model's own process, with libraries and the largest batch.",
        ("model", "runs in", "computes in", "files MB", "peak memory MB", "peak VRAM MB"),
        rows,
    )


def _limits(report: Report, models: Sequence[Model]) -> Table:
    limits = report.limits
    assert limits is not None
    rows = []
    for m in models:
        assert m.speed is not None
        rows.append(
            [
                m.title,
                scaled(m.token_bytes, 1e6, ".1f"),
                share(m.speed.bandwidth_share),
                share(m.speed.compute_share),
            ]
        )
    return Table(
        "How far from what this machine could do",
        f"Measured here: {limits.read_bytes_per_second / 1e9:.1f} GB/s read, "
        f"{limits.float32_flops / 1e9:.0f} GFLOP/s in float32 and "
        f"{limits.bfloat16_flops / 1e9:.0f} in bfloat16. A new token needs its weights read once; "
        "a prompt's tokens need two operations a weight, of the faster type.",
        ("model", "MB read a token", "decoding, of bandwidth", "prompts, of arithmetic"),
        rows,
    )


def _quality(report: Report) -> Table:
    rows = []
    for m in report.models:
        q, found = m.quality, m.letters
        rows.append(
            [
                m.title,
                f"{q.loss:.3f} ({q.loss_interval[0]:.3f} to {q.loss_interval[1]:.3f})"
                if q
                else NONE,
                accuracy(q.accuracy, q.accuracy_interval) if q else NONE,
                accuracy(found.accuracy, found.interval) if found else NONE,
                ("passed" if q.passed else "refused") if q else NONE,
            ]
        )
    note = "Loss on held-out answers and whole options by likelihood: the gate's, fine-tuned only. "
    if report.baseline:
        b = report.baseline
        note += (
            f"By letter: {b.questions} questions of {b.source}, the likeliest letter through the "
            f"chat template, as each model runs here. Always saying {b.letter} scores "
            f"{b.accuracy:.0%}: a model whose interval holds that has shown nothing. "
        )
    return Table(
        "Quality",
        note + "In brackets 95 % intervals.",
        ("model", "loss", "right, by option", "right, by letter", "gate"),
        rows,
    )


def differences(report: Report) -> Table:
    """Every comparison; in its place "no difference" where noise could have made it."""
    titles = {m.name: m.title for m in report.models}
    names = {
        "tokens_per_second": "tokens/s",
        "prompt_tokens_per_second": "prompt tokens/s",
        "latency_seconds": "latency",
    }
    rows = [
        [titles[c.model], titles[c.other], names[c.figure], verdict(c)] for c in report.comparisons
    ]
    return Table(
        "What differs, and what does not",
        "Ratios of medians, round by round, with an interval of 99 %. Where it holds 1, there is "
        "no difference to report.",
        ("model", "against", "figure", "ratio"),
        rows,
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
