"""Status, documentation, and the engine's life."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

import housecall
from housecall.engines.fake import FakeEngine
from housecall.errors import EngineError
from serving import MODEL, client_for

pytestmark = pytest.mark.anyio


class SlowEngine(FakeEngine):
    """Loads until it is told to go on, and then perhaps fails."""

    def __init__(self, failure: EngineError | None = None) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.closed = False
        self._error = failure

    async def start(self) -> None:
        await self.go_on.wait()
        if self._error:
            raise self._error
        await super().start()

    async def close(self) -> None:
        self.closed = True
        await super().close()


async def test_the_process_is_alive_before_the_model_answers(app_of: Any) -> None:
    engine = SlowEngine()
    app = app_of(engine)
    async with app.router.lifespan_context(app), client_for(app) as client:
        health = await client.get("/health")
        assert health.json() == {"status": "ok", "version": housecall.__version__}
        early = await client.get("/ready")
        assert (early.status_code, early.headers["retry-after"]) == (503, "5")
        assert (await client.post("/generate", json={"prompt": "a cold"})).status_code == 503
        assert (await client.post("/generate", json={"prompt": "chest pain"})).status_code == 200
        engine.go_on.set()
        await asyncio.sleep(0.01)
        assert (await client.get("/ready")).json() == {"status": "ready"}
        engine.available = False
        assert (await client.get("/ready")).status_code == 503
    assert engine.closed


async def test_a_model_that_can_not_be_loaded_is_named(app_of: Any) -> None:
    engine = SlowEngine(EngineError("demo.gguf: not a model"))
    engine.go_on.set()
    app = app_of(engine)
    async with app.router.lifespan_context(app), client_for(app) as client:
        await client.get("/health")
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert "demo.gguf: not a model" in ready.json()["error"]["message"]
        assert str(app.state.failure) == "demo.gguf: not a model"


async def test_a_model_that_was_not_gated_is_told_of_at_start_and_in_each_answer(
    app_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(FakeEngine())
    app.state.answerer.model = replace(MODEL, gated=False)
    async with app.router.lifespan_context(app), client_for(app) as client:
        assert f"NOT GATED: demo gguf-q4_k_m (sha256 {MODEL.sha256})" in caplog.text
        while not (await client.get("/ready")).is_success:
            await asyncio.sleep(0.01)
        answer = (await client.post("/generate", json={"prompt": "Hello"})).json()
        assert answer["model"]["gated"] is False


async def test_shutting_down_while_the_model_loads(app_of: Any) -> None:
    engine = SlowEngine()
    app = app_of(engine)
    async with app.router.lifespan_context(app):
        await asyncio.sleep(0)
    assert engine.closed


async def test_the_documentation_needs_no_network(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert len(links) >= 4
    for link in links:
        assert link.startswith("/")
        assert (await client.get(link)).status_code == 200
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


async def test_every_field_of_a_request_is_documented(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert {"/generate", "/chat", "/v1/chat/completions", "/answers/{answer_id}"} <= set(
        document["paths"]
    )
    schemas = document["components"]["schemas"]
    for name in ("GenerateRequest", "ChatRequest", "ChatCompletionRequest"):
        assert schemas[name]["additionalProperties"] is False
        assert schemas[name]["examples"]
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["description"]
            error = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert error["$ref"].endswith("/ErrorBody")
