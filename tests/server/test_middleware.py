"""Ids, log lines, and who may ask for what."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.server.logs import ConsoleFormatter, JsonFormatter
from serving import client_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("given", ["abc", "A-1_b.c", "x" * 64])
async def test_a_good_request_id_is_taken(client: httpx.AsyncClient, given: str) -> None:
    headers = {"X-Request-ID": given}
    response = await client.post("/generate", json={"prompt": "Hi"}, headers=headers)
    assert response.headers["x-request-id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a;b", "é".encode(), "a\t"])
async def test_another_one_is_replaced(client: httpx.AsyncClient, given: str | bytes) -> None:
    response = await client.get("/health", headers={"X-Request-ID": given})
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])


def lines(caplog: pytest.LogCaptureFixture, formatter: logging.Formatter) -> list[str]:
    return [formatter.format(r) for r in caplog.records if r.name == "housecall.requests"]


async def test_a_request_has_one_line_without_its_words(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    body = {"message": "I have chest pain and a secret"}
    answer = (await client.post("/chat?secret=1", json=body)).json()
    [line] = lines(caplog, JsonFormatter())
    assert "secret" not in line
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["request_id"] == answer["request_id"]
    assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/chat", 200)
    assert entry["ttft_ms"] is None or entry["ttft_ms"] >= 0
    assert answer["session_id"] not in line
    assert re.fullmatch(r"[0-9a-f]{12}", entry["session"])
    assert (entry["answer_id"], entry["guard"]) == (answer["id"], "emergency")
    assert entry["duration_ms"] >= 0


async def test_words_are_logged_when_asked_for(
    client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = await client_of(log_text=True)
    caplog.set_level(logging.INFO)
    caplog.clear()
    await client.post("/generate", json={"prompt": "Hello\nyou\x1b[2J"})
    [line] = lines(caplog, JsonFormatter())
    assert json.loads(line)["prompt"] == "Hello\nyou\x1b[2J"
    assert "\x1b" not in line


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()])
async def test_a_path_can_not_forge_a_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, formatter: logging.Formatter
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    await client.get("/a%0AINFO%20forged%1b%5b2J%c2%85")
    [line] = lines(caplog, formatter)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


def test_an_exception_is_logged_without_its_words() -> None:
    try:
        raise ValueError("a secret")
    except ValueError as error:
        details = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "it failed", None, details)
    entry = json.loads(JsonFormatter().format(record))
    assert entry["exception"] == "ValueError"
    assert "test_an_exception_is_logged" in entry["frames"][-1]
    assert "secret" not in json.dumps(entry)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
async def test_loopback_names_are_answered(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::2]:8000"])
async def test_another_name_is_refused(client: httpx.AsyncClient, host: str) -> None:
    """A page can make its own name point to 127.0.0.1 (DNS rebinding)."""
    response = await client.get("/health", headers={"Host": host})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "host_not_allowed"


async def test_names_can_be_allowed(client_of: Any) -> None:
    client = await client_of(allowed_hosts=("house.local", "127.0.0.1"))
    assert (await client.get("/health", headers={"Host": "House.local:80"})).status_code == 200
    assert (await client.get("/health", headers={"Host": "localhost"})).status_code == 400


@pytest.fixture
async def locked(app_of: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server with the keys ``one`` and ``two``."""
    app = app_of(api_keys=("one", "two"))
    async with app.router.lifespan_context(app), client_for(app) as client:
        yield client


@pytest.mark.parametrize("given", ["Bearer one", "bearer two", "Bearer  two"])
async def test_each_key_opens(locked: httpx.AsyncClient, given: str) -> None:
    response = await locked.get("/sessions", headers={"Authorization": given})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "one"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer on"},
        {"Authorization": "Bearer one two"},
        {"Authorization": "Basic one"},
        {"Authorization": "Bearer é".encode("latin-1")},
    ],
)
@pytest.mark.parametrize("path", ["/sessions", "/generate", "/v1/models", "/nope", "/docsx"])
async def test_without_a_key_nothing_opens(
    locked: httpx.AsyncClient, headers: dict[str, Any], path: str
) -> None:
    response = await locked.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/health", "/docs", "/openapi.json"])
async def test_what_has_no_data_needs_no_key(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200


async def test_a_large_body_is_refused(client_of: Any) -> None:
    client = await client_of(max_body_bytes=1024)

    async def unannounced() -> AsyncIterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(20):
            yield b"x" * 100
        yield b'"}'

    announced = await client.post("/generate", json={"prompt": "x" * 1024})
    headers = {"content-type": "application/json"}
    chunked = await client.post("/generate", content=unannounced(), headers=headers)
    for response in (announced, chunked):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
    assert (await client.post("/generate", json={"prompt": "x" * 900})).status_code == 200


async def test_only_named_origins_may_call(client_of: Any) -> None:
    client = await client_of(cors_origins=("https://app.example",), api_keys=("one",))
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    good = await client.options("/generate", headers={"Origin": "https://app.example", **ask})
    assert good.headers["access-control-allow-origin"] == "https://app.example"
    bad = await client.options("/generate", headers={"Origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in bad.headers
    refused = await client.get("/sessions", headers={"Origin": "https://app.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
