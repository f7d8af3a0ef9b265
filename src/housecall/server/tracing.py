"""OpenTelemetry spans of requests, where its packages are installed; else nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_THERE = importlib.util.find_spec("opentelemetry") is not None


@contextmanager
def request_span(facts: Mapping[str, Any]) -> Iterator[None]:
    """A span around one request; ``facts`` are read when it ends.

    They are those of the log line: with ``log_text`` off, no words are among them.
    """
    if not _THERE:
        yield
        return
    from opentelemetry import trace

    with trace.get_tracer("housecall").start_as_current_span("request") as span:
        try:
            yield
        finally:
            if span.is_recording():
                span.update_name(f"{facts.get('method')} {facts.get('route')}")
                for name, value in facts.items():
                    if isinstance(value, (str, int, float, bool)):
                        span.set_attribute(f"housecall.{name}", value)
