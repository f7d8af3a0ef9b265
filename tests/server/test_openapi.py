"""Requests made from the OpenAPI description: no 5xx, and answers as it says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings

from housecall.engines.fake import FakeEngine
from serving import serving

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
)

KEPT = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
}
"""What must hold. Its other checks ask that every odd field be refused; OpenAI's are ignored."""


@pytest.mark.slow
def test_the_description_is_true(app_of: Callable[..., FastAPI]) -> None:
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    checks = [check for check in CHECKS.get_all() if check.__name__ in KEPT]
    assert len(checks) == len(KEPT)
    app = app_of(FakeEngine(["All right."]))
    described = {
        f"{method.upper()} {path}"
        for path, found in app.openapi()["paths"].items()
        for method in found
    }
    seen = set()
    with serving(app) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            seen.add(operation.label)

            @given(case=operation.as_strategy())
            @settings(
                max_examples=25,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def attempt(case: Any) -> None:
                case.call_and_validate(checks=checks)

            attempt()
    assert seen == described
