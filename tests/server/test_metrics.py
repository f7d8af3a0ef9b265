"""What Prometheus is told, and what logs and metrics never hold."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from housecall.engines.fake import FakeEngine
from housecall.server.logs import ConsoleFormatter, JsonFormatter

pytestmark = pytest.mark.anyio

SECRET = "xyzzy-secret"


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_answers_are_counted(client_of: Any) -> None:
    engine = FakeEngine(["one two three"])
    client = await client_of(engine)
    await client.post("/chat", json={"message": "Hello"})
    await client.post("/chat", json={"message": "I have chest pain"})
    await client.get("/sessions/ses_nope")
    await client.get("/nowhere")
    found = await samples(client)
    assert found["housecall_requests_total", "POST", "/chat", "200"] == 2
    assert found["housecall_requests_total", "GET", "/sessions/{session_id}", "404"] == 1
    assert found["housecall_requests_total", "GET", "-", "404"] == 1
    assert found["housecall_answers_total", "chat", "complete"] == 2
    assert found["housecall_guard_total", "emergency"] == 1
    assert found["housecall_tokens_total", "completion"] == 8
    assert found["housecall_tokens_total", "prompt_read"] > 20
    assert found["housecall_time_to_first_token_seconds_count",] == 2
    assert found["housecall_inter_token_seconds_count",] >= 6
    assert found["housecall_engine_restarts_total",] == 0


async def test_the_queue_is_seen(client_of: Any) -> None:
    client = await client_of(FakeEngine(parallel=1, delay=0.1))
    asked = [
        asyncio.create_task(client.post("/generate", json={"prompt": "a b c d"})) for _ in range(3)
    ]
    found = await samples(client)
    while (found["housecall_running",], found["housecall_queued",]) != (1, 2):
        found = await samples(client)
    await asyncio.gather(*asked)
    found = await samples(client)
    assert (found["housecall_running",], found["housecall_queued",]) == (0, 0)


async def test_failed_answers_are_counted(client_of: Any) -> None:
    client = await client_of(FakeEngine(fail_after=1))
    await client.post("/generate", json={"prompt": "Hello", "stream": True})
    assert (await samples(client))["housecall_answers_total", "generate", "error"] == 1


async def test_keys_and_words_are_in_no_log_and_no_metric(
    client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = await client_of(FakeEngine([SECRET], fail_after=3), api_keys=(f"key {SECRET}",))
    for key in (f"key {SECRET}", f"wrong {SECRET}"):
        headers = {"Authorization": f"Bearer {key}"}
        for path, body in (
            ("/chat", {"message": SECRET}),
            ("/chat", {"message": SECRET, "stream": True}),
            ("/generate", {"prompt": f"chest pain {SECRET}"}),
            ("/generate", {"prompt": SECRET, SECRET: 1}),
            (f"/{SECRET}", {}),
            (f"/sessions/{SECRET}/restore", {}),
        ):
            await client.post(f"{path}?q={SECRET}", json=body, headers=headers)
    metrics = await client.get("/metrics", headers={"Authorization": f"Bearer key {SECRET}"})
    assert metrics.status_code == 200
    assert SECRET not in metrics.text
    ours = [record for record in caplog.records if record.name.startswith("housecall")]
    assert len(ours) >= 12
    for record in ours:
        assert SECRET not in ConsoleFormatter().format(record)
        assert SECRET not in json.dumps(JsonFormatter().format(record))
