"""What Prometheus may know: counts and times, never words, names or sessions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from housecall.answer import Answerer
from housecall.draft import Draft
from housecall.engines.base import Engine
from housecall.records import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TO_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_REQUEST = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self, answerer: Answerer, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Now(answerer, engine))
        self._requests = Counter(
            "housecall_requests", "Requests.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "housecall_request_seconds",
            "Until the response was sent.",
            ["method", "route"],
            buckets=_REQUEST,
            registry=registry,
        )
        self._answers = Counter(
            "housecall_answers",
            "Answers, by how they ended.",
            ["kind", "status"],
            registry=registry,
        )
        self._guard = Counter(
            "housecall_guard", "Questions, by what the guard found.", ["level"], registry=registry
        )
        self._tokens = Counter(
            "housecall_tokens",
            "Tokens: of prompts (read, or cached) and of answers.",
            ["kind"],
            registry=registry,
        )
        self._first = Histogram(
            "housecall_time_to_first_token_seconds",
            "From the question to the model's first token.",
            buckets=_TO_FIRST_TOKEN,
            registry=registry,
        )
        self._gaps = Histogram(
            "housecall_inter_token_seconds",
            "Between two pieces of an answer.",
            buckets=_BETWEEN_TOKENS,
            registry=registry,
        )

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def answered(self, draft: Draft, status: Status) -> None:
        """Count an answer, whole or not."""
        self._answers.labels(draft.request.kind, status).inc()
        self._guard.labels(draft.guard.level).inc()
        usage, timings = draft.usage(), draft.timings()
        self._tokens.labels("prompt_read").inc(usage.prompt_tokens - usage.cached_tokens)
        self._tokens.labels("prompt_cached").inc(usage.cached_tokens)
        self._tokens.labels("completion").inc(usage.completion_tokens)
        if timings.ttft_ms is not None:
            self._first.observe(timings.ttft_ms / 1000)
        for gap in draft.gaps:
            self._gaps.observe(gap)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What is read when it is asked for."""

    def __init__(self, answerer: Answerer, engine: Engine) -> None:
        self._answerer = answerer
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        running, queued = self._answerer.load
        yield GaugeMetricFamily("housecall_running", "Answers being made.", running)
        yield GaugeMetricFamily("housecall_queued", "Questions waiting for a place.", queued)
        yield CounterMetricFamily(
            "housecall_engine_restarts", "Restarts of the engine.", self._engine.restarts
        )
