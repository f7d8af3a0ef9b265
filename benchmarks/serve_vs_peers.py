"""Housecall beside `python -m llama_cpp.server` (llama-cpp-python): 8 chat streams at once.

    python -m venv peer
    CMAKE_ARGS="-DGGML_NATIVE=OFF" peer/bin/pip install 'llama-cpp-python[server]'
    python benchmarks/serve_vs_peers.py runs/demo --peer peer/bin/python

It has no wheel and compiles for some minutes; GGML_NATIVE=OFF because a build for this very
processor may die on another. It runs with its defaults, by which a new request breaks off the
stream that is being answered, and told not to. The engine's own server runs besides: no API
before it can be faster. All get the same requests in turn. Only tokens of streams that came
to their end count. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from servers import ask, engine_alone, housecall, llama_cpp_python

from housecall.lineage import served_model

STREAMS = 8
TOKENS = 128
N_CTX = 1024
TARGET = 5.0
PEER = "llama_cpp.server"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    parser.add_argument("--peer", type=Path, required=True, help="the other environment's python")
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model(arguments.run, ungated=True).path.resolve()
    async with AsyncExitStack() as stack:
        sides = {
            "housecall": await stack.enter_async_context(
                housecall(model, n_ctx=N_CTX, parallel=STREAMS)
            ),
            "the engine's own server": await stack.enter_async_context(
                engine_alone(model, n_ctx=N_CTX, parallel=STREAMS)
            ),
        }
        for name, interrupt in ((PEER, True), (f"{PEER}, not interrupting", False)):
            peer = llama_cpp_python(
                arguments.peer.absolute(), model, n_ctx=N_CTX, interrupt=interrupt
            )
            sides[name] = await stack.enter_async_context(peer)
        for side in sides.values():
            await ask(side, "Warm up.", 8)
        firsts: dict[str, list[float]] = {name: [] for name in sides}
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        whole: dict[str, list[int]] = {name: [] for name in sides}
        for number in range(arguments.rounds):
            for name, side in sides.items():
                began = time.perf_counter()
                answers = await asyncio.gather(
                    *(
                        ask(side, f"Write a long story, number {number}, of town {i}.", TOKENS)
                        for i in range(STREAMS)
                    )
                )
                seconds = time.perf_counter() - began
                ended = [answer for answer in answers if answer.whole]
                speeds[name].append(sum(answer.tokens for answer in ended) / seconds)
                whole[name].append(len(ended))
                firsts[name].append(median(answer.ttft_ms for answer in answers))
    rows = {
        name: {
            "completed_tokens_per_second": round(median(speeds[name]), 1),
            "whole_streams": round(median(whole[name])),
            "ttft_ms": round(median(firsts[name])),
        }
        for name in speeds
    }
    for name, row in rows.items():
        print(
            f"{name:<36}{row['completed_tokens_per_second']:>8} completed tokens/s, "
            f"{row['whole_streams']} of {STREAMS} streams whole, "
            f"first token after {row['ttft_ms']} ms"
        )
    ratios = {
        name: round(median(a / b for a, b in zip(speeds["housecall"], other, strict=True)), 2)
        for name, other in speeds.items()
    }
    print(f"Housecall against each: {ratios} (target: at least {TARGET:.0f})")
    return {"streams": STREAMS, "ratios": ratios, **rows}


if __name__ == "__main__":
    main()
