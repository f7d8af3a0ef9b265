"""A real server on a port: clients that go away, a port in use, signals."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from housecall.errors import ConfigError
from housecall.server.run import bind
from housecall.sessions import SessionStore
from housecall.settings import load_settings
from housecall.types import Chunk, Sampling
from serving import Held, events_in, serving, started

SLOW = {"message": "one two three four five six seven eight nine ten"}


LONG = {"message": "word " * 60}
ENDLESS = {"message": "word " * 500, "stream": True}


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


@contextmanager
def leaving(address: str, body: dict[str, Any]) -> Iterator[None]:
    """Ask, and go away without the answer."""
    with closing(HTTPConnection(urlsplit(address).netloc)) as connection:
        connection.request("POST", "/chat", json.dumps(body), {"Content-Type": "application/json"})
        yield


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_the_engine(
    app_of: Callable[..., FastAPI], stream: bool
) -> None:
    engine = Held(first=4)
    with (
        serving(app_of(engine)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        if stream:
            with client.stream("POST", "/chat", json={**SLOW, "stream": True}) as response:
                tokens = response.iter_lines()
                while next(tokens) != 'data: {"text": " one"}':
                    pass
        else:
            with leaving(address, SLOW):
                wait_for(lambda: engine.said == 4)
        wait_for(lambda: engine.active == 0)

        [session] = client.get("/sessions").json()["sessions"]

        def answer() -> Any:
            messages = client.get(f"/sessions/{session['id']}").json()["messages"]
            return messages[1:]

        [saved] = wait_for(answer)
        assert saved["status"] == "cancelled"
        assert saved["content"].startswith("you said")
        assert "ten" not in saved["content"]
        lineage = client.get(f"/answers/{saved['answer_id']}").json()
        assert lineage["finish_reason"] == "cancelled"
        engine.held = False
        again = {"message": "Go on.", "session_id": session["id"]}
        assert client.post("/chat", json=again).status_code == 200


def test_a_client_that_goes_away_while_queued_frees_its_place(
    app_of: Callable[..., FastAPI],
) -> None:
    engine = Held(parallel=1)
    app = app_of(engine, queue=1)
    with serving(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/chat", json={**SLOW, "stream": True}) as running:
            assert next(lines := running.iter_lines()) == "event: token"
            with leaving(address, {"message": "I wait in the queue"}):
                wait_for(lambda: app.state.answerer.load == (1, 1))
            wait_for(lambda: app.state.answerer.load == (1, 0))
            with ThreadPoolExecutor() as pool:
                waits = pool.submit(client.post, "/chat", json=SLOW)
                wait_for(lambda: app.state.answerer.load == (1, 1))
                engine.held = False
                assert waits.result().status_code == 200
            assert "event: done" in list(lines)
        assert len(engine.requests) == 2  # the engine never heard of the one that left
        assert len(client.get("/sessions").json()["sessions"]) == 3  # its words are kept


class Torrent(FakeEngine):
    """Says 100,000 characters with each token, for ever, and counts what was taken."""

    taken = 0

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        self.active += 1
        try:
            while True:
                await asyncio.sleep(0)
                self.taken += 1
                yield Chunk("x" * 100_000, (5,))
        finally:
            self.active -= 1


@pytest.mark.slow
def test_a_slow_reader_holds_little_memory_and_is_dropped(app_of: Callable[..., FastAPI]) -> None:
    engine = Torrent()
    app = app_of(engine, send_timeout=0.5)
    with serving(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        body = {"message": "Hi", "stream": True}
        with client.stream("POST", "/chat", json=body) as response:
            session_id = response.headers["x-session-id"]
            wait_for(lambda: engine.taken)
            wait_for(lambda: not engine.active, 300)
            # What lies in the buffers of the two ends of the connection, and no more.
            assert engine.taken < 200
            with pytest.raises(httpx.RemoteProtocolError):
                response.read()
        [_, saved] = wait_for(
            lambda: len(m := client.get(f"/sessions/{session_id}").json()["messages"]) == 2 and m
        )
        assert saved["status"] == "cancelled"
        assert len(saved["content"]) == engine.taken * 100_000


def test_tokens_arrive_as_they_are_made(app_of: Callable[..., FastAPI]) -> None:
    engine, arrived = Held(), 0
    body = {**SLOW, "stream": True}
    with (
        serving(app_of(engine)) as address,
        httpx.stream("POST", f"{address}/chat", json=body, timeout=60) as response,
    ):
        for line in response.iter_lines():
            if line == "event: token":
                arrived += 1
                engine.first += 1  # only now may it make the next one
                engine.held = arrived < 13
    assert arrived == 13


def test_a_port_in_use_is_one_clear_line() -> None:
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use: choose another with --port"):
            bind("127.0.0.1", port)


def test_an_unknown_host_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"host 'nowhere\.invalid' is not an address"):
        bind("nowhere.invalid", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_end_first(tmp_path: Path, number: signal.Signals) -> None:
    body = {**SLOW, "stream": True}
    with started(tmp_path) as (process, address):
        with httpx.stream("POST", f"{address}/chat", json=body, timeout=60) as response:
            lines = response.iter_lines()
            while next(lines) != 'data: {"text": " one"}':
                pass
            process.send_signal(number)
            assert "event: done" in list(lines)
        out, log = process.communicate(timeout=60)
    assert (out, process.returncode) == ("closed\n", 0)
    assert "Traceback" not in log
    assert "exception" not in log


def test_while_it_drains_new_questions_are_503(tmp_path: Path) -> None:
    with (
        started(tmp_path) as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        with client.stream("POST", "/chat", json={**LONG, "stream": True}) as response:
            lines = response.iter_lines()
            while next(lines) != 'data: {"text": " word"}':
                pass
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: client.get("/ready").status_code == 503)
            refused = client.post("/chat", json=SLOW)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "shutting down" in refused.json()["error"]["message"]
            assert client.get("/health").status_code == 200
            emergency = client.post("/chat", json={"message": "chest pain"})
            assert emergency.json()["text"] == "Call 112 now."
            assert "event: done" in list(lines)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_what_is_said_when_it_must_end_is_saved(tmp_path: Path) -> None:
    with started(tmp_path) as (process, address):
        with httpx.stream("POST", f"{address}/chat", json=ENDLESS, timeout=60) as response:
            session_id = response.headers["x-session-id"]
            lines = response.iter_lines()
            while next(lines) != 'data: {"text": " word"}':
                pass
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: httpx.get(f"{address}/ready", timeout=60).status_code == 503)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        process.communicate(timeout=60)
    assert process.returncode == 0
    check_cancelled(tmp_path, session_id)


def test_who_waits_longer_than_it_drains_is_told_and_what_was_said_is_saved(
    tmp_path: Path,
) -> None:
    with (
        started(tmp_path, "drain_seconds=0.5") as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        with client.stream("POST", "/chat", json=ENDLESS) as response:
            session_id = response.headers["x-session-id"]
            lines = response.iter_lines()
            while next(lines) != 'data: {"text": " word"}':
                pass
            plain = {**ENDLESS, "stream": False}
            # The engine answers four at once: some of these wait in the queue.
            others = [
                pool.submit(httpx.post, f"{address}/chat", json=plain, timeout=60) for _ in range(5)
            ]
            wait_for(lambda: "housecall_queued 2.0" in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            name, data = events_in("\n".join(lines).strip())[-1]
        assert name == "error"
        assert json.loads(data)["error"]["code"] == "engine_unavailable"
        for answer in (other.result() for other in others):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "shutting down" in answer.json()["error"]["message"]
        process.communicate(timeout=60)
    assert process.returncode == 0
    check_cancelled(tmp_path, session_id)


def check_cancelled(data_dir: Path, session_id: str) -> None:
    with closing(SessionStore(load_settings(data_dir=data_dir).database)) as store:
        [question, answer] = store.session(session_id).messages
        lineage = store.answer(str(answer.answer_id))
    assert (question.content, answer.status) == (ENDLESS["message"], "cancelled")
    assert answer.content.startswith("you said: word")
    assert lineage.finish_reason == "cancelled"


def test_a_server_whose_model_can_not_be_loaded_ends(tmp_path: Path) -> None:
    with started(tmp_path, "broken") as (process, _):
        out, _ = process.communicate(timeout=60)
    assert out == "error: demo.gguf: not a model\nclosed\n"
