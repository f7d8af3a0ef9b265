"""What the tests of the server share: a model, a scripted guard, and ways to reach an app."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from housecall.guard.base import GuardMatch, GuardResult
from housecall.guard.output import OutputReader
from housecall.server.run import bind
from housecall.types import Chunk, Message, Sampling, ServedModel

MODEL = ServedModel(
    name="demo",
    format="gguf-q4_k_m",
    sha256="ab" * 32,
    path=Path("demo.gguf"),
    run="demo",
    gated=True,
    system_prompt="Be kind.",
    lineage=({"kind": "variant", "sha256": "1"}, {"kind": "dataset", "sha256": "2"}),
)


class ScriptedGuard:
    """Finds ``chest pain`` and ``no way out``, and keeps what it was given to read."""

    version = "scripted-1"

    def __init__(self) -> None:
        self.read: list[tuple[str, list[Message]]] = []

    def check(self, text: str, history: Sequence[Message] = ()) -> GuardResult:
        self.read.append((text, list(history)))
        start = text.find("chest pain")
        if start >= 0:
            match = GuardMatch("chest_pain", "chest pain", start, start + 10, "present")
            return GuardResult("emergency", (match,), "en", "Call 112 now.")
        if "no way out" in text:
            return GuardResult("crisis", (), "en", "Talk to someone now.")
        return GuardResult()

    def answer_reader(self, result: GuardResult, messages: Sequence[Message]) -> OutputReader:
        known = "\n".join(message.content for message in messages)
        return OutputReader(known, urgent=False, policy="mark")


class Held(FakeEngine):
    """Stops after ``first`` tokens while ``held``, so that no test has to be quicker than it.

    ``said`` counts the tokens it gave. All three are plain values: any thread may set them.
    """

    def __init__(self, *args: Any, first: int = 1, held: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.first, self.held, self.said = first, held, 0

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        count = 0
        async with aclosing(super().stream(prompt, sampling)) as chunks:
            async for chunk in chunks:
                while self.held and count >= self.first:
                    await asyncio.sleep(0.001)
                count += 1
                self.said += 1
                yield chunk


def client_for(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=20
    )


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app on a free port, and give its address."""
    with bind("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=address, timeout=60) as client:
                while client.get("/ready").status_code == 503:
                    time.sleep(0.01)
            yield address
        finally:
            server.should_exit = True
            thread.join()


def events_in(stream: str) -> list[tuple[str, str]]:
    """The name and the data of each server-sent event."""
    events = []
    for block in stream.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((fields.get("event", ""), fields["data"]))
    return events


SERVER = """
import sys
from pathlib import Path
import housecall.server.run
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

# A busy machine needs its time to send what is asked for when the server ends.
housecall.server.run._SECONDS_TO_END = 30
engine = Broken() if "broken" in sys.argv else FakeEngine(delay=0.05)
flags = dict(flag.split("=", 1) for flag in sys.argv[2:] if "=" in flag)
settings = load_settings(data_dir=sys.argv[1], port=0, **flags)
store = SessionStore(settings.database)
listener = bind(settings.host, settings.port)
print(listener.getsockname()[1], flush=True)
try:
    serve(lambda: create_app(engine, ScriptedGuard(), MODEL, store, settings), settings, listener)
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
