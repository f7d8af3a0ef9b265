"""Under load: a full queue, two requests to one session, many clients on sessions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from serving import Held, events_in, serving

pytestmark = pytest.mark.anyio

SLOW = {"message": "one two three four five six seven eight nine ten"}


@pytest.mark.slow
async def test_a_full_queue_is_429_while_health_answers(client_of: Any) -> None:
    engine = FakeEngine(parallel=1, delay=0.1)
    client = await client_of(engine, queue=2)
    taken = [asyncio.create_task(client.post("/chat", json=SLOW)) for _ in range(3)]
    while client._transport.app.state.answerer.load != (1, 2):
        await asyncio.sleep(0.001)
    for path, body in (
        ("/chat", SLOW),
        ("/generate", {"prompt": "Hi", "stream": True}),
        ("/v1/chat/completions", {"model": "demo", "messages": [{"role": "user", "content": "x"}]}),
    ):
        refused = await client.post(path, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert refused.json()["error"]["code"] == "busy"
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/ready")).status_code == 200
    emergency = await client.post("/chat", json={"message": "I have chest pain"})
    assert (emergency.status_code, emergency.json()["finish_reason"]) == (200, "guard")
    assert [(await answer).status_code for answer in taken] == [200] * 3
    assert (await client.post("/chat", json=SLOW)).status_code == 200
    sessions = (await client.get("/sessions")).json()["sessions"]
    assert len(sessions) == 5  # what was refused began none


async def test_a_second_request_during_a_stream_never_interleaves(
    app_of: Callable[..., FastAPI],
) -> None:
    engine = Held(held=False)
    with serving(app_of(engine)) as address:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            session_id = (await client.post("/chat", json={"message": "Hi"})).json()["session_id"]
            body = {**SLOW, "session_id": session_id}
            engine.held = True
            async with client.stream("POST", "/chat", json={**body, "stream": True}) as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "event: token"
                for streamed in (True, False):
                    refused = await client.post("/chat", json={**body, "stream": streamed})
                    assert refused.status_code == 409
                    assert refused.json()["error"]["code"] == "session_in_use"
                    assert refused.headers["retry-after"] == "1"
                engine.held = False
                rest = [line async for line in lines]
            assert "event: done" in rest
            saved = (await client.get(f"/sessions/{session_id}")).json()["messages"]
            assert [(m["turn"], m["role"]) for m in saved] == [
                *((1, "user"), (1, "assistant"), (2, "user"), (2, "assistant")),
            ]
            assert (await client.post("/chat", json=body)).json()["turn"] == 3


async def test_sixteen_clients_lose_no_turn(app_of: Callable[..., FastAPI]) -> None:
    clients, turns = 16, 20
    with serving(app_of(FakeEngine(parallel=8), queue=clients)) as address:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:

            async def converse(number: int) -> str:
                fields: dict[str, Any] = {"stream": number % 2 == 0}
                for turn in range(1, turns + 1):
                    message = f"client {number} turn {turn}"
                    response = await client.post("/chat", json={"message": message, **fields})
                    assert response.status_code == 200, response.text
                    if fields["stream"]:
                        name, _ = events_in(response.text)[-1]
                        assert name == "done"
                        fields["session_id"] = response.headers["x-session-id"]
                    else:
                        fields["session_id"] = response.json()["session_id"]
                return str(fields["session_id"])

            ids = await asyncio.gather(*map(converse, range(clients)))
            assert len(set(ids)) == clients
            for number, session_id in enumerate(ids):
                saved = (await client.get(f"/sessions/{session_id}")).json()["messages"]
                expected = [
                    (turn, role, f"{prefix}client {number} turn {turn}", "complete")
                    for turn in range(1, turns + 1)
                    for role, prefix in (("user", ""), ("assistant", "you said: "))
                ]
                assert [
                    (m["turn"], m["role"], m["content"], m["status"]) for m in saved
                ] == expected
