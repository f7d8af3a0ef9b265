"""Housecall's own endpoints."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from housecall.engines.fake import FakeEngine
from housecall.errors import EngineBusy, EngineError
from serving import MODEL, Held, events_in

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "golden"
MODEL_BODY = {
    "name": "demo",
    "format": "gguf-q4_k_m",
    "sha256": MODEL.sha256,
    "run": "demo",
    "gated": True,
}


async def test_generate_answers_with_the_whole_contract(client: httpx.AsyncClient) -> None:
    response = await client.post("/generate", json={"prompt": "Hello"})
    body = response.json()
    assert response.status_code == 200
    assert re.fullmatch(r"ans_[0-9a-f]{32}", body.pop("id"))
    assert body.pop("request_id") == response.headers["x-request-id"]
    timings = body.pop("timings")
    assert 0 <= timings["ttft_ms"] <= timings["total_ms"]
    assert body == {
        "text": "you said: Hello",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 17, "completion_tokens": 5, "cached_tokens": 0},
        "guard": {"level": "none", "matches": [], "language": "und", "message": "", "output": []},
        "model": MODEL_BODY,
    }


async def test_all_sampling_fields_reach_the_engine(client_of: Any) -> None:
    engine = FakeEngine()
    client = await client_of(engine)
    fields = {
        "max_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.25,
        "repeat_penalty": 1.5,
        "seed": 11,
        "stop": ["END", "STOP"],
        "json_schema": {"type": "object"},
    }
    await client.post("/generate", json={"prompt": "Hi", "system": "Be brief.", **fields})
    request = engine.requests[0]
    assert "system\nBe brief.<|im_end|>" in request.text
    for name, value in fields.items():
        found = getattr(request.sampling, name)
        assert (list(found) if name == "stop" else found) == value


async def test_the_defaults_are_those_of_the_contract(client_of: Any) -> None:
    engine = FakeEngine()
    await (await client_of(engine)).post("/generate", json={"prompt": "Hi"})
    sampling = engine.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (256, 0.7, 0.95)
    assert (sampling.top_k, sampling.min_p, sampling.repeat_penalty) == (40, 0.05, 1.0)
    assert (sampling.seed, sampling.stop, sampling.json_schema) == (None, (), None)


async def test_an_answer_that_is_cut_says_so(client: httpx.AsyncClient) -> None:
    body = {"prompt": "one two three", "max_tokens": 2}
    assert (await client.post("/generate", json=body)).json()["finish_reason"] == "length"
    body = {"prompt": "one two three", "stop": " two"}
    answer = (await client.post("/generate", json=body)).json()
    assert (answer["text"], answer["finish_reason"]) == ("you said: one", "stop")


async def test_a_chat_is_saved_and_goes_on(client: httpx.AsyncClient) -> None:
    first = (await client.post("/chat", json={"message": "I cough."})).json()
    again = {"message": "Since Monday.", "session_id": first["session_id"]}
    second = (await client.post("/chat", json=again)).json()
    assert (first["turn"], second["turn"]) == (1, 2)
    assert second["context"] == {
        "n_ctx": 2048,
        "prompt_tokens": second["usage"]["prompt_tokens"],
        "turns_total": 2,
        "turns_in_window": 2,
        "dropped_turns": 0,
        "pinned": [],
    }
    saved = (await client.get(f"/sessions/{first['session_id']}")).json()
    assert [(m["turn"], m["role"], m["content"], m["status"]) for m in saved["messages"]] == [
        (1, "user", "I cough.", "complete"),
        (1, "assistant", "you said: I cough.", "complete"),
        (2, "user", "Since Monday.", "complete"),
        (2, "assistant", "you said: Since Monday.", "complete"),
    ]
    assert saved["messages"][3]["answer_id"] == second["id"]


async def test_history_survives_a_restart(client_of: Any) -> None:
    first = (await (await client_of()).post("/chat", json={"message": "I cough."})).json()
    engine = FakeEngine()
    client = await client_of(engine)
    body = {"message": "Still.", "session_id": first["session_id"]}
    assert (await client.post("/chat", json=body)).json()["turn"] == 2
    assert "I cough." in engine.requests[0].text


async def test_sessions_are_listed_in_pages_and_deleted(client: httpx.AsyncClient) -> None:
    ids = [
        (await client.post("/chat", json={"message": f"About {i}"})).json()["session_id"]
        for i in range(3)
    ]
    page = (await client.get("/sessions", params={"limit": 2})).json()
    assert [session["id"] for session in page["sessions"]] == [ids[2], ids[1]]
    assert page["sessions"][0]["title"] == "About 2"
    rest = (await client.get("/sessions", params={"before": page["next"]})).json()
    assert ([session["id"] for session in rest["sessions"]], rest["next"]) == ([ids[0]], None)

    assert (await client.delete(f"/sessions/{ids[0]}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await client.request(method, f"/sessions/{ids[0]}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_a_session_in_use_is_neither_answered_nor_deleted(client_of: Any) -> None:
    engine = Held(held=False)
    client = await client_of(engine)
    session_id = (await client.post("/chat", json={"message": "Hi"})).json()["session_id"]
    body = {"message": "one two three four", "session_id": session_id}
    engine.held = True
    first = asyncio.create_task(client.post("/chat", json=body))
    while not engine.active:
        await asyncio.sleep(0.001)
    refused = await client.post("/chat", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_in_use")
    assert (await client.delete(f"/sessions/{session_id}")).status_code == 409
    engine.held = False
    assert (await first).json()["turn"] == 2


async def test_the_lineage_of_an_answer(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/chat", json={"message": "Hello"})).json()
    lineage = (await client.get(f"/answers/{answer['id']}")).json()
    for name in ("id", "request_id", "session_id", "turn", "finish_reason", "usage", "model"):
        assert lineage[name] == answer[name]
    assert lineage["lineage"] == [dict(entry) for entry in MODEL.lineage]
    assert (lineage["kind"], lineage["guard_version"]) == ("chat", "scripted-1")
    assert (await client.get("/answers/ans_nope")).status_code == 404


async def test_the_models_that_are_served(client: httpx.AsyncClient) -> None:
    assert (await client.get("/models")).json() == {"models": [MODEL_BODY]}
    named = await client.post("/generate", json={"prompt": "Hi", "model": "demo"})
    assert named.status_code == 200
    other = await client.post("/generate", json={"prompt": "Hi", "model": "gpt-9"})
    assert other.status_code == 404
    assert other.json()["error"]["code"] == "model_not_found"
    assert other.json()["error"]["param"] == "model"


def golden(stream: str) -> str:
    """A stream without what differs from one run to the next."""
    stream = re.sub(r'"(ans|ses|req)_[0-9a-f]{32}"', r'"\1_..."', stream)
    return re.sub(r'"(\w+_ms|tokens_per_second)": [\d.]+', r'"\1": 0.0', stream)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("generate", "/generate", {"prompt": "a\u2028b\r\n\x00 é"}),
        ("chat_emergency", "/chat", {"message": "I have chest pain"}),
        ("chat_crisis", "/chat", {"message": "I see no way out"}),
    ],
)
async def test_streams_are_as_written(
    client: httpx.AsyncClient, name: str, path: str, body: dict[str, str]
) -> None:
    response = await client.post(path, json={**body, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert golden(response.text) == (GOLDEN / f"{name}.sse").read_text(encoding="utf-8")


async def test_a_stream_ends_with_the_whole_answer(client: httpx.AsyncClient) -> None:
    body = {"message": "I have chest pain"}
    stream = await client.post("/chat", json={**body, "stream": True})
    events = events_in(stream.text)
    assert [name for name, _ in events] == ["guard", *["token"] * 7, "done"]
    done = json.loads(events[-1][1])
    tokens = "".join(json.loads(data)["text"] for name, data in events if name == "token")
    assert done["text"] == f"Call 112 now.\n\n{tokens}"
    whole = (await client.post("/chat", json=body)).json()
    assert done.keys() == whole.keys()
    assert done["text"] == whole["text"]


async def test_an_emergency_is_answered_with_the_engine_down(client_of: Any) -> None:
    engine = FakeEngine()
    client = await client_of(engine)
    engine.available = False
    for path, name in (("/generate", "prompt"), ("/chat", "message")):
        emergency = await client.post(path, json={name: "chest pain"})
        assert emergency.status_code == 200
        assert emergency.json()["text"] == "Call 112 now."
        assert emergency.json()["finish_reason"] == "guard"
        other = await client.post(path, json={name: "a cold"})
        assert (other.status_code, other.headers["retry-after"]) == (503, "5")
        assert other.json()["error"]["code"] == "engine_unavailable"


async def test_a_stream_that_fails_in_the_middle_ends_with_an_error(client_of: Any) -> None:
    client = await client_of(FakeEngine(fail_after=2, failure=EngineError("it died")))
    response = await client.post("/generate", json={"prompt": "Hello", "stream": True})
    *tokens, (name, data) = events_in(response.text)
    assert [event for event, _ in tokens] == ["token", "token"]
    assert name == "error"
    error = json.loads(data)["error"]
    assert (error["message"], error["code"]) == ("it died", "engine_error")
    assert error["request_id"] == response.headers["x-request-id"]


async def test_a_stream_that_fails_at_once_has_the_status(client_of: Any) -> None:
    client = await client_of(FakeEngine(fail_after=0, failure=EngineBusy("full")))
    response = await client.post("/generate", json={"prompt": "Hello", "stream": True})
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")


async def test_a_long_prompt_tells_how_long(client_of: Any) -> None:
    client = await client_of(FakeEngine(n_ctx=64))
    response = await client.post("/generate", json={"prompt": "word " * 100})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["n_prompt_tokens"] > 100
    assert error["n_ctx"] == 64
