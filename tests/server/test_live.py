"""A real server on a port: clients that go away, a port in use, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from housecall.errors import ConfigError
from housecall.server.run import bind
from serving import serving

SLOW = {"message": "one two three four five six seven eight nine ten"}


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_the_engine(
    app_of: Callable[..., FastAPI], stream: bool
) -> None:
    engine = FakeEngine(delay=0.05)
    with serving(app_of(engine)) as address, httpx.Client(base_url=address) as client:
        if stream:
            with client.stream("POST", "/chat", json={**SLOW, "stream": True}) as response:
                tokens = response.iter_lines()
                while next(tokens) != 'data: {"text": " one"}':
                    pass
        else:
            with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.35) as hasty:
                hasty.post(f"{address}/chat", json=SLOW)
        wait_for(lambda: engine.active == 0, 1.0)

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
        again = {"message": "Go on.", "session_id": session["id"]}
        assert client.post("/chat", json=again).status_code == 200


def test_tokens_arrive_as_they_are_made(app_of: Callable[..., FastAPI]) -> None:
    with serving(app_of(FakeEngine(delay=0.05))) as address:
        arrived = []
        with httpx.stream("POST", f"{address}/chat", json={**SLOW, "stream": True}) as response:
            for line in response.iter_lines():
                if line == "event: token":
                    arrived.append(time.monotonic())
    assert len(arrived) == 13
    assert arrived[-1] - arrived[0] > 0.4


def test_a_port_in_use_is_one_clear_line() -> None:
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use: choose another with --port"):
            bind("127.0.0.1", port)


def test_an_unknown_host_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"host 'nowhere\.invalid' is not an address"):
        bind("nowhere.invalid", 0)


SERVER = """
import sys
from pathlib import Path
from housecall.engines.fake import FakeEngine
from housecall.errors import EngineError, HousecallError
from housecall.server.app import create_app
from housecall.server.run import bind, serve
from housecall.sessions import SessionStore
from housecall.settings import load_settings
from serving import MODEL, ScriptedGuard

class Broken(FakeEngine):
    async def start(self):
        raise EngineError("demo.gguf: not a model")

engine = Broken() if "broken" in sys.argv else FakeEngine(delay=0.05)
settings = load_settings(data_dir=sys.argv[1], port=0)
store = SessionStore(settings.database)
listener = bind(settings.host, settings.port)
print(listener.getsockname()[1], flush=True)
try:
    serve(create_app(engine, ScriptedGuard(), MODEL, store, settings), settings, listener)
except HousecallError as error:
    print("error:", error)
print("closed")
"""


@contextmanager
def started(tmp_path: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    search = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVER, str(tmp_path), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    ) as process:
        try:
            assert process.stdout is not None
            yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_end_first(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (process, address):
        with httpx.stream("POST", f"{address}/chat", json={**SLOW, "stream": True}) as response:
            lines = response.iter_lines()
            while next(lines) != 'data: {"text": " one"}':
                pass
            process.send_signal(number)
            assert "event: done" in list(lines)
        out, log = process.communicate(timeout=10)
    assert (out, process.returncode) == ("closed\n", 0)
    assert "Traceback" not in log
    assert "exception" not in log


def test_a_server_whose_model_can_not_be_loaded_ends(tmp_path: Path) -> None:
    with started(tmp_path, "broken") as (process, _):
        out, _ = process.communicate(timeout=10)
    assert out == "error: demo.gguf: not a model\nclosed\n"
