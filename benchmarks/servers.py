"""Servers for the benchmarks, each on a port of its own, and a question to any of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from housecall.engines.llama_process import LlamaConfig, LlamaProcess
from housecall.machine import cpu_count

UNGUARDED = """
import sys
from pathlib import Path
from housecall.commands.base import build_parts
from housecall.guard.base import GuardResult
from housecall.lineage import served_model
from housecall.server.app import create_app
from housecall.server.run import serve
from housecall.settings import load_settings

class Silent:
    version = "none"
    stopped, findings = False, ()
    def check(self, text, history=()): return GuardResult()
    def answer_reader(self, result, messages): return self
    def read(self, piece): return piece
    def close(self): return ""

settings = load_settings()
parts = build_parts(served_model(sys.argv[1], ungated=True), settings)
serve(lambda: create_app(parts.engine, Silent(), parts.model, parts.store, settings), settings)
"""
"""Housecall with a guard that finds nothing: there is no such setting, on purpose."""


SYSTEM = {"role": "system", "content": "You inform, you do not diagnose."}
"""Said to all: without it Housecall sends the run's own and others the template's."""


class Side(NamedTuple):
    """One server: how it is reached, its process, and the seconds until it answered."""

    client: httpx.AsyncClient
    pid: int
    ready_seconds: float
    model: str = "model"


class Answered(NamedTuple):
    """One stream: milliseconds to its first text, tokens, and whether it came to its end."""

    ttft_ms: float
    tokens: int
    whole: bool
    text: str
    prompt_tokens: int


async def ask(side: Side, prompt: str, tokens: int, **more: Any) -> Answered:
    """One greedy streamed chat answer, the same request to every server."""
    body = {
        "model": side.model,
        "messages": [SYSTEM, {"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }
    began = time.perf_counter()
    first, texts, usage, finished, whole = 0.0, [], {}, False, False
    try:
        async with side.client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    whole = finished  # llama_cpp.server also says it after a stream it broke off
                elif line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", ()):
                        finished = finished or bool(choice.get("finish_reason"))
                        if text := choice.get("delta", {}).get("content"):
                            first = first or time.perf_counter()
                            texts.append(text)
    except httpx.TransportError:
        pass  # cut off: it is not whole
    counted = usage.get("completion_tokens", len(texts))
    return Answered(
        ((first or time.perf_counter()) - began) * 1000,
        counted,
        whole,
        "".join(texts),
        usage.get("prompt_tokens", 0),
    )


async def at_once(width: int, count: int, work: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """``work`` with the numbers below ``count``, ``width`` of them at a time."""
    numbers = iter(range(count))
    done: list[Any] = [None] * count

    async def worker() -> None:
        for number in numbers:
            done[number] = await work(number)

    await asyncio.gather(*(worker() for _ in range(width)))
    return done


@asynccontextmanager
async def engine_alone(model: Path, *, n_ctx: int, parallel: int) -> AsyncIterator[Side]:
    """xllamacpp's own HTTP server with the settings that Housecall gives it."""
    config = LlamaConfig(
        model=str(model),
        n_ctx=n_ctx,
        parallel=parallel,
        threads=cpu_count(),
        gpu_layers=0,
        cache_reuse=False,
        prompt_cache_mib=512,
    )
    process = LlamaProcess(config)
    began = time.perf_counter()
    await process.start()
    try:
        headers = {"Authorization": f"Bearer {process.key}"}
        async with _client(process.address, headers) as client:
            while not (await client.get("/health")).is_success:
                await asyncio.sleep(0.02)
            yield Side(client, process.pid or 0, time.perf_counter() - began)
    finally:
        await process.stop()


@asynccontextmanager
async def housecall(
    model: Path, *, n_ctx: int, parallel: int, guard: bool = True, **settings: str
) -> AsyncIterator[Side]:
    """The API as ``housecall serve`` starts it; its ready time is the model's, not the port's."""
    port = _free_port()
    command = [sys.executable, "-m", "housecall", "serve", str(model), "--ungated"]
    if not guard:
        command = [sys.executable, "-c", UNGUARDED, str(model)]
    with tempfile.TemporaryDirectory() as folder:
        given = {"data_dir": folder, "port": port, "ctx": n_ctx, "parallel": parallel, **settings}
        environment = {f"HOUSECALL_{name.upper()}": str(value) for name, value in given.items()}
        async with _process(command, environment, port, "/ready") as side:
            names = (await side.client.get("/v1/models")).json()["data"]
            yield side._replace(model=names[0]["id"])


@asynccontextmanager
async def llama_cpp_python(
    python: Path, model: Path, *, n_ctx: int, interrupt: bool
) -> AsyncIterator[Side]:
    """``python -m llama_cpp.server`` of another virtual environment.

    With ``interrupt``, its default, a new request breaks off the stream that is being answered.
    """
    port = _free_port()
    command = [str(python), "-m", "llama_cpp.server", "--model", str(model)]
    command += ["--n_ctx", str(n_ctx), "--n_threads", str(cpu_count())]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--interrupt_requests", str(interrupt)]
    async with _process(command, {}, port, "/v1/models") as side:
        yield side


@asynccontextmanager
async def _process(
    command: list[str], environment: dict[str, str], port: int, ready: str
) -> AsyncIterator[Side]:
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            async with _client(f"http://127.0.0.1:{port}", {}) as client:
                await _until(client, ready, server)
                yield Side(client, server.pid, time.perf_counter() - began)
        finally:
            server.terminate()


async def _until(client: httpx.AsyncClient, path: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            if (await client.get(path)).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.02)
    sys.exit(f"a server did not start: try  {' '.join(map(str, server.args))}")


def _client(address: str, headers: dict[str, str]) -> httpx.AsyncClient:
    # The engine ends a connection after each stream; so each request gets one, on every side.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(
        base_url=address, headers=headers, timeout=600, limits=limits, trust_env=False
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
