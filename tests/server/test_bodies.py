"""Bodies that are no JSON, too large, or full of text that breaks things elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared_data import shared_data

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
PATHS = ("/chat", "/v1/chat/completions")


async def test_every_body_that_is_no_json_is_refused(client: httpx.AsyncClient) -> None:
    files = sorted(shared_data("fuzz/jsontestsuite").glob("n_*.json"))
    assert len(files) > 150
    for file in files:
        for path in PATHS:
            response = await client.post(path, content=file.read_bytes(), headers=JSON)
            assert 400 <= response.status_code < 500, (file.name, path)
            assert response.json()["error"]["message"], file.name


async def test_no_json_at_all_crashes(client: httpx.AsyncClient) -> None:
    """What a parser may take or refuse, and what it must take but is no request."""
    for file in sorted(shared_data("fuzz/jsontestsuite").glob("[iy]_*.json")):
        for path in PATHS:
            response = await client.post(path, content=file.read_bytes(), headers=JSON)
            assert 400 <= response.status_code < 500, (file.name, path)


@pytest.mark.slow
async def test_naughty_strings_are_only_text(client: httpx.AsyncClient) -> None:
    strings = json.loads(shared_data("fuzz/blns.json").read_text(encoding="utf-8"))
    assert len(strings) > 500
    for text in strings:
        answer = await client.post("/chat", json={"message": text})
        if not text.strip():
            assert answer.status_code == 422
            continue
        assert answer.status_code == 200, text
        body = answer.json()
        if body["finish_reason"] != "length":
            assert body["text"] == f"you said: {text.strip()}"
        saved = (await client.get(f"/sessions/{body['session_id']}")).json()
        assert saved["messages"][0]["content"] == text
    for text in strings:
        for name in ("session_id", "model"):
            response = await client.post("/chat", json={"message": "Hi", name: text})
            assert response.status_code in (404, 422), text
        found = await client.get("/sessions", params={"q": text[:200], "before": "ses_1"})
        assert found.status_code in (200, 404), text
        header = text.encode("utf-8", "replace")
        if b"\n" not in header and b"\r" not in header and b"\0" not in header:
            response = await client.get("/health", headers={"X-Request-ID": header})
            assert response.status_code == 200


async def test_a_body_over_the_limit_is_not_read_to_its_end(client_of: Any) -> None:
    client = await client_of(max_body_bytes=10_000)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'{"prompt": "'
        while read < 10_000_000:
            read += 1000
            yield b"x" * 1000

    for path in PATHS:
        read = 0
        response = await client.post(path, content=endless(), headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        assert read <= 12_000


@pytest.mark.parametrize(
    "messages",
    [None, "text", 5, {}, [], [None], ["text"], [{"role": "wizard", "content": "x"}], [{}]],
)
async def test_messages_that_are_none(client: httpx.AsyncClient, messages: Any) -> None:
    body = {"model": "demo", "messages": messages}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("messages")
