"""The API over the real engine: it is killed, it repeats itself, its characters come whole."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.llama import LlamaEngine
from serving import events_in, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals"),
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs xllamacpp"),
]

LONG = {"message": "Tell me all you know about the heart.", "max_tokens": 400}


@pytest.fixture
def model(smollm2_gguf: Path, tmp_path: Path) -> Path:
    """The small model under a name of its own, that can be taken away."""
    link = tmp_path / "model.gguf"
    link.symlink_to(smollm2_gguf)
    return link


@pytest.fixture
def serve(app_of: Callable[..., FastAPI], model: Path) -> Callable[..., Any]:
    """Serve the small model, and give a client and the engine."""

    @contextmanager
    def start(**flags: Any) -> Iterator[tuple[httpx.Client, LlamaEngine]]:
        deterministic = flags.get("deterministic", False)
        engine = LlamaEngine(
            model,
            n_ctx=1024,
            parallel=1 if deterministic else 2,
            threads=1,
            cache_prompt=not deterministic,
        )
        app: Any = app_of(engine, **flags)
        with serving(app) as address, httpx.Client(base_url=address, timeout=120) as client:
            yield client, engine

    return start


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 300
    while client.get("/ready").status_code == 503:
        assert time.monotonic() < deadline, "the engine did not come back"
        time.sleep(0.05)


def test_an_engine_that_is_killed_ends_streams_with_an_error_and_comes_back(
    serve: Any, model: Path, tmp_path: Path
) -> None:
    with serve() as (client, engine):
        pid = engine.pid
        with client.stream("POST", "/chat", json={**LONG, "stream": True}) as response:
            session_id = response.headers["x-session-id"]
            lines = response.iter_lines()
            said = []
            while len(said) < 5:
                if (line := next(lines)).startswith("data: "):
                    said.append(json.loads(line.removeprefix("data: "))["text"])
            # Without its model it can't come back before it was seen to be away.
            away = model.rename(tmp_path / "away.gguf")
            os.kill(pid, signal.SIGKILL)
            rest = list(lines)
        assert rest[-3] == "event: error"
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert (error["code"], error["request_id"]) == (
            "engine_unavailable",
            response.headers["x-request-id"],
        )
        refused = client.post("/chat", json=LONG)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        assert client.post("/chat", json={"message": "chest pain"}).status_code == 200
        [question, answer] = client.get(f"/sessions/{session_id}").json()["messages"]
        assert (question["content"], answer["status"]) == (LONG["message"], "error")
        assert answer["content"].startswith("".join(said))

        away.rename(model)
        wait_until_ready(client)
        assert engine.pid != pid
        again = {"message": "Go on.", "session_id": session_id, "max_tokens": 8}
        assert client.post("/chat", json=again).json()["turn"] == 2


def test_emergencies_are_answered_while_no_engine_can_be_started(serve: Any, model: Path) -> None:
    said = "I have chest pain"
    messages = [{"role": "user", "content": said}]
    asked: dict[str, dict[str, Any]] = {
        "/chat": {"message": said},
        "/generate": {"prompt": said},
        "/v1/chat/completions": {"model": "demo", "messages": messages},
        "/v1/completions": {"model": "demo", "prompt": said},
    }
    with serve() as (client, engine):
        model.unlink()
        os.kill(engine.pid, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while engine.restarts < 2:  # it was tried again, in vain
            assert time.monotonic() < deadline
            for path, body in asked.items():
                answer = client.post(path, json=body)
                assert answer.status_code == 200, path
                assert "Call 112 now." in answer.text
                stream = client.post(path, json={**body, "stream": True}).text
                assert stream.find("Call 112 now.") < 1000
                events = events_in(stream)
                assert events[-1][0] == "done" or events[-1][1] == "[DONE]"
                assert "error" not in dict(events)
        assert client.get("/ready").status_code == 503
        assert client.post("/generate", json={"prompt": "a cold"}).status_code == 503
        model.write_bytes(b"")  # a file that is there again, and broken: it goes on trying
        assert client.post("/chat", json={"message": said}).status_code == 200


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.2, "seed": 7}])
def test_deterministic_is_the_same_text_every_time(serve: Any, sampling: dict[str, float]) -> None:
    body = {"prompt": "What helps against a cold?", "max_tokens": 40, **sampling}
    with serve(deterministic=True) as (client, _):
        answers = []
        for other in ("Good morning.", "Write about spring.", "What helps against a cough?"):
            answers.append(client.post("/generate", json=body).json())
            client.post("/generate", json={"prompt": other, "max_tokens": 5})
        stream = client.post("/generate", json={**body, "stream": True}).text
        joined = "".join(
            json.loads(data)["text"] for name, data in events_in(stream) if name == "token"
        )
    assert {answer["text"] for answer in answers} == {joined}
    assert all(answer["usage"]["cached_tokens"] == 0 for answer in answers)


def test_characters_of_several_tokens_come_whole(serve: Any) -> None:
    text = (
        "\U0001f469\u200d\U0001f467 \u4f60\u597d, \u75db\u3044 \u00e9\u2028\r\0 "
        "\U0001f1ea\U0001f1fa!"
    )
    body = {"prompt": "Hi", "json_schema": {"const": text}, "max_tokens": 200}
    with serve() as (client, _):
        whole = client.post("/generate", json=body).json()["text"]
        response = client.post("/generate", json={**body, "stream": True})
    tokens = [
        json.loads(data)["text"] for name, data in events_in(response.text) if name == "token"
    ]
    assert json.loads(whole) == json.loads("".join(tokens)) == text
    assert all(token.encode() and "\ufffd" not in token for token in tokens)
