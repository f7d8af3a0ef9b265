"""Housecall's API beside the engine's own HTTP server: same model, same settings, one run.

    python benchmarks/serve_vs_engine.py runs/demo

Starts xllamacpp's server alone and `housecall serve`, and asks both in turn: 1, 4, 8 and 16 streams
of up to 128 tokens (greedy, so that both sides say about the same), then answers of one token;
medians over the rounds. Prints tables, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
import psutil

from housecall.engines.llama_process import LlamaConfig, LlamaProcess
from housecall.lineage import served_model
from housecall.machine import cpu_count

STREAMS = (1, 4, 8, 16)
TOKENS = 128
N_CTX = 1024
TARGETS = {"tokens_per_second": 0.97, "ttft_ms": 10.0, "one_token": 0.8, "ready_seconds": 3.0}


class Answered(NamedTuple):
    """One stream: when its first token came, how many there were."""

    ttft_ms: float
    tokens: int


Ask = Callable[[httpx.AsyncClient, str, int], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=5000, help="of one token, for the memory")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model(arguments.run, ungated=True).path.resolve()
    async with engine_alone(model) as engine, housecall(model) as (ours, server, ready_seconds):
        sides: dict[str, tuple[httpx.AsyncClient, Ask]] = {
            "engine": (engine, ask_engine),
            "housecall": (ours, ask_housecall),
        }
        for client, ask in sides.values():  # warm
            await ask(client, "warm up", 8)
        result: dict[str, Any] = {"ready_seconds": round(ready_seconds, 2)}
        print(f"API ready after {ready_seconds:.2f} s (target {TARGETS['ready_seconds']:.0f})")
        result["streams"] = [await compare(sides, n, arguments.rounds) for n in STREAMS]
        result["one_token"] = await one_token(sides, arguments.rounds)
        result["memory"] = await memory(ours, server, arguments.requests)
        return result


async def compare(sides: dict[str, Any], streams: int, rounds: int) -> dict[str, Any]:
    """Aggregate tokens a second and time to the first token, both sides in turn."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    firsts: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, (client, ask) in sides.items():
            prompts = [
                f"Write a very long story, number {number}, about town {i}." for i in range(streams)
            ]
            began = time.perf_counter()
            answers = await asyncio.gather(*(ask(client, p, TOKENS) for p in prompts))
            seconds = time.perf_counter() - began
            speeds[name].append(sum(a.tokens for a in answers) / seconds)
            firsts[name].append(median(a.ttft_ms for a in answers))
    row = {
        "streams": streams,
        **{f"{name}_tokens_per_second": round(median(v), 1) for name, v in speeds.items()},
        **{f"{name}_ttft_ms": round(median(v), 1) for name, v in firsts.items()},
    }
    row["ratio"] = round(row["housecall_tokens_per_second"] / row["engine_tokens_per_second"], 3)
    row["ttft_more_ms"] = round(row["housecall_ttft_ms"] - row["engine_ttft_ms"], 1)
    print(
        f"{streams:>3} streams: engine {row['engine_tokens_per_second']:>7} tokens/s, "
        f"housecall {row['housecall_tokens_per_second']:>7} ({row['ratio']}; target 0.97); "
        f"first token {row['engine_ttft_ms']} and {row['housecall_ttft_ms']} ms"
    )
    return row


async def one_token(sides: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Requests a second that make one token each, four at a time."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (client, ask) in sides.items():
            began = time.perf_counter()
            await at_once(4, 100, lambda i, c=client, a=ask: a(c, f"Number {i % 10}?", 1))
            rates[name].append(100 / (time.perf_counter() - began))
    medians = {name: round(median(values), 1) for name, values in rates.items()}
    ratio = round(medians["housecall"] / medians["engine"], 3)
    print(f"one token: {medians} requests/s, ratio {ratio} (target {TARGETS['one_token']})")
    return {**medians, "ratio": ratio}


async def memory(client: httpx.AsyncClient, pid: int, requests: int) -> dict[str, Any]:
    """Resident memory of the API process over many requests, after a warm-up of a tenth."""
    sizes = []
    for _ in range(10):
        await at_once(8, requests // 10, lambda i: ask_housecall(client, f"Number {i % 50}?", 1))
        sizes.append(psutil.Process(pid).memory_info().rss / 1e6)
    print(f"memory over {requests} requests, MB: {[round(size, 1) for size in sizes]}")
    return {"requests": requests, "megabytes": [round(size, 1) for size in sizes]}


async def at_once(width: int, count: int, ask: Callable[[int], Any]) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await ask(number)

    await asyncio.gather(*(worker() for _ in range(width)))


async def ask_engine(client: httpx.AsyncClient, prompt: str, tokens: int) -> Answered:
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    body = {
        "prompt": text,
        "n_predict": tokens,
        "stream": True,
        "temperature": 0,
        "cache_prompt": True,
    }
    return await read(client, "/completion", body, lambda event: bool(event.get("content")))


async def ask_housecall(client: httpx.AsyncClient, prompt: str, tokens: int) -> Answered:
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    return await read(client, "/generate", body, lambda event: "text" in event)


async def read(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], is_token: Callable[[Any], bool]
) -> Answered:
    began = time.perf_counter()
    first, tokens = 0.0, 0
    async with client.stream("POST", path, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "usage" in event:
                tokens = event["usage"]["completion_tokens"]
            elif "tokens_predicted" in event and event.get("stop"):
                tokens = event["tokens_predicted"]
            elif is_token(event) and not first:
                first = time.perf_counter()
    return Answered(((first or time.perf_counter()) - began) * 1000, tokens)


@asynccontextmanager
async def engine_alone(model: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The engine's server with the settings that Housecall gives it."""
    config = LlamaConfig(
        model=str(model),
        n_ctx=N_CTX,
        parallel=max(STREAMS),
        threads=cpu_count(),
        gpu_layers=0,
        cache_reuse=False,
        prompt_cache_mib=512,
    )
    process = LlamaProcess(config)
    await process.start()
    headers = {"Authorization": f"Bearer {process.key}"}
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(
            base_url=process.address, headers=headers, timeout=600, limits=limits
        ) as client:
            while not (await client.get("/health")).is_success:
                await asyncio.sleep(0.05)
            yield client
    finally:
        await process.stop()


@asynccontextmanager
async def housecall(model: Path) -> AsyncIterator[tuple[httpx.AsyncClient, int, float]]:
    """The API, its process id, and the seconds from its start until the model answered."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "housecall", "serve", str(model), "--ungated"]
        command += ["--port", str(port), "--ctx", str(N_CTX), "--parallel", str(max(STREAMS))]
        environment = {**os.environ, "HOUSECALL_DATA_DIR": folder}
        began = time.perf_counter()
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
            try:
                limits = httpx.Limits(max_keepalive_connections=0)
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits
                ) as client:
                    await until_ready(client, server)
                    yield client, server.pid, time.perf_counter() - began
            finally:
                server.terminate()


async def until_ready(client: httpx.AsyncClient, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            if (await client.get("/ready")).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.02)
    sys.exit("housecall did not start: try  housecall serve  with the same model")


if __name__ == "__main__":
    main()
