"""``report.json`` of a bench, field by field; ``data/bench_report.schema.json`` is its schema.

Rates are per second, sizes in bytes, times in seconds, shares from 0 to 1. None: not measured, or
not to be had there (of a server, nothing is known but what it sends).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from housecall.artifact import MANIFEST
from housecall.errors import ArtifactError

VERSION = 1
REPORT = "report.json"
SCHEMA = "bench_report.schema.json"

Verdict = Literal["higher", "lower", "no difference", "not enough rounds"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(_Value):
    """The median of ``count`` values, the lowest and the highest."""

    median: float
    low: float
    high: float
    count: int


class Percentiles(_Value):
    """Of all single values of all rounds; ``p99`` only where there are enough to speak of it."""

    p50: float
    p95: float
    p99: float | None
    count: int


class Batch(_Value):
    """``size`` answers at once: new tokens of all a second, prompts included, and how long."""

    size: int
    tokens_per_second: Figure
    seconds: Figure


class Speed(_Value):
    """How fast one model is. Latency is of one whole answer of ``new_tokens`` tokens."""

    load_seconds: Figure | None
    prompt_tokens_per_second: Figure
    first_token_seconds: Figure
    tokens_per_second: Figure
    latency_seconds: Percentiles
    between_tokens_seconds: Percentiles | None
    batches: list[Batch]
    bandwidth_share: float | None
    compute_share: float | None
    harness_overhead: float | None


class Quality(_Value):
    """What the gate found of it (docs/runs.md), with intervals of 95 %."""

    loss: float
    loss_interval: tuple[float, float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    passed: bool


class Letters(_Value):
    """Questions answered by the likeliest letter, with Wilson's interval of 95 %."""

    right: int
    questions: int
    accuracy: float
    interval: tuple[float, float]


class Model(_Value):
    """One model: its row of every table. ``error`` says why it has no figures."""

    name: str
    title: str
    error: str | None
    bytes: int | None
    engine: str | None
    settings: dict[str, Any] | None
    computes_in: str | None
    peak_memory_bytes: int | None
    peak_gpu_bytes: int | None
    token_bytes: int | None
    speed: Speed | None
    quality: Quality | None
    letters: Letters | None
    answers: list[str] | None


class Comparison(_Value):
    """One figure of a model by that of another: geometric mean over rounds, interval of 99 %."""

    figure: Literal["tokens_per_second", "prompt_tokens_per_second", "latency_seconds"]
    model: str
    other: str
    ratio: float
    interval: tuple[float, float] | None
    verdict: Verdict


class Baseline(_Value):
    """Always naming the commonest right letter."""

    source: str
    letter: str
    right: int
    questions: int
    accuracy: float


class Machine(_Value):
    """What it ran on. ``busy`` is the median and the worst share that other programs took."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    threads: int
    versions: dict[str, str]
    busy: Figure | None


class Limits(_Value):
    """Measured here: bytes read a second and floating-point operations a second."""

    read_bytes_per_second: float
    float32_flops: float
    bfloat16_flops: float


class Plan(_Value):
    """What was done; each round visits all models, each in a process of its own."""

    quick: bool
    rounds: int
    prompts: int
    prompt_tokens: list[int]
    new_tokens: int
    batches: list[int]
    answer_tokens: int
    prompt_flops_per_token: int | None


class Report(_Value):
    """A whole bench."""

    version: Literal[1]
    run: str
    gate: str | None
    created: str
    housecall: str
    plan: Plan
    machine: Machine
    limits: Limits | None
    warnings: list[str]
    models: list[Model]
    comparisons: list[Comparison]
    baseline: Baseline | None
    prompts: list[str]

    def model(self, name: str) -> Model | None:
        """The row of one model."""
        return next((m for m in self.models if m.name == name), None)


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) that every ``report.json`` of this version keeps."""
    found: dict[str, Any] = Report.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def read_report(bench: Path) -> Report:
    """The report of a bench's folder. Raises ArtifactError."""
    file = bench / REPORT
    if not (bench / MANIFEST).is_file():
        run = bench.parent.name
        raise ArtifactError(f"{bench}: nothing was measured there: run  housecall bench {run}")
    try:
        raw: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Report.model_validate(raw)
    except (OSError, ValueError) as error:
        what = f"{error.error_count()} fields" if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(
            f"{file}: not a report of this version ({what}): run  housecall bench "
            f"{bench.parent.name}"
        ) from None
