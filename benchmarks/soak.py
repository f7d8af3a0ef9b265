"""Is the API ready soon, and its memory flat over thousands of requests, on the real engine?

    python benchmarks/soak.py runs/demo

Starts `housecall serve` several times, for the time until the model answers; then asks 5,000
questions of one token, 8 at a time, half of them in sessions of 10 turns, and reads the resident
memory of the API process ten times. Prints figures, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from statistics import median
from typing import Any

import psutil
from servers import Side, at_once, housecall

from housecall.lineage import served_model

READY_SECONDS, GROWTH = 3.0, 1.05  # targets; growth from the second tenth to the last
STARTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    parser.add_argument("--requests", type=int, default=5000)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model(arguments.run, ungated=True).path.resolve()
    starts, sizes = [], []
    for _ in range(STARTS):
        async with housecall(model, n_ctx=512, parallel=8) as side:
            starts.append(side.ready_seconds)
    ready = median(starts)
    print(f"ready after {ready:.2f} s (median of {STARTS}; target {READY_SECONDS:.0f})")
    async with housecall(model, n_ctx=512, parallel=8) as side:
        for _ in range(10):
            await at_once(8, arguments.requests // 20, lambda i: alone(side, i))
            await at_once(8, arguments.requests // 200, lambda i: conversation(side, i))
            sizes.append(round(psutil.Process(side.pid).memory_info().rss / 1e6, 1))
    growth = sizes[-1] / sizes[1]
    print(f"resident memory after each tenth of {arguments.requests} requests, MB: {sizes}")
    print(f"growth from the second to the last: {growth:.3f} (target: at most {GROWTH})")
    return {"ready_seconds": round(ready, 2), "megabytes": sizes, "growth": round(growth, 3)}


async def alone(side: Side, number: int) -> None:
    body = {"prompt": f"Is number {number} even?", "max_tokens": 1}
    (await side.client.post("/generate", json=body)).raise_for_status()


async def conversation(side: Side, number: int) -> None:
    session: dict[str, str] = {}
    for turn in range(10):
        body = {"message": f"Is {number} plus {turn} even?", "max_tokens": 1, **session}
        answer = await side.client.post("/chat", json=body)
        session = {"session_id": answer.raise_for_status().json()["session_id"]}


if __name__ == "__main__":
    main()
