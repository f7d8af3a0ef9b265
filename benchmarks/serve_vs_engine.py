"""Housecall's API beside the engine's own HTTP server: same model, same settings, one run.

    python benchmarks/serve_vs_engine.py runs/demo

Starts xllamacpp's server alone, `housecall serve`, and Housecall without its guard, and sends all
three the same requests to /v1/chat/completions in turn: 1, 4, 8 and 16 streams of up to 128 tokens
(greedy, so that all say about the same), then answers of one token. Figures are medians over the
rounds; the order of the three changes from one round to the next. Prints tables, and JSON as its
last line.

On a machine whose speed moves by itself the ratios need many rounds. What the API's own process
takes of the processors, which the engine keeps busy, moves less: it is told besides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import psutil
from servers import Side, ask, at_once, engine_alone, housecall

from housecall.lineage import served_model
from housecall.machine import cpu_count

STREAMS = (1, 4, 8, 16)
TOKENS = 128
N_CTX = 1024
SPEED, MORE_MS, ONE_TOKEN = 0.97, 10.0, 0.8  # targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model(arguments.run, ungated=True).path.resolve()
    size = {"n_ctx": N_CTX, "parallel": max(STREAMS)}
    async with AsyncExitStack() as stack:
        sides = {
            "engine": await stack.enter_async_context(engine_alone(model, **size)),
            "housecall": await stack.enter_async_context(housecall(model, **size)),
            "unguarded": await stack.enter_async_context(housecall(model, guard=False, **size)),
        }
        warm = [await ask(side, "Warm up.", 8) for side in sides.values()]
        assert len({answer.prompt_tokens for answer in warm}) == 1, "not the same prompt"
        rows = [await compare(sides, n, arguments.rounds) for n in arguments.streams]
        return {"streams": rows, "one_token": await one_token(sides, arguments.rounds)}


async def compare(sides: dict[str, Side], streams: int, rounds: int) -> dict[str, Any]:
    """Tokens a second in all and time to the first token; ratios are taken within a round."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    firsts: dict[str, list[float]] = {name: [] for name in sides}
    shares: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in turned(sides, number):
            prompts = [f"Write a long story, number {number}, of town {i}." for i in range(streams)]
            began, worked = time.perf_counter(), cpu_seconds(side)
            answers = await asyncio.gather(*(ask(side, p, TOKENS) for p in prompts))
            seconds = time.perf_counter() - began
            shares[name].append((cpu_seconds(side) - worked) / (seconds * cpu_count()))
            assert all(answer.whole for answer in answers), f"{name} cut a stream off"
            speeds[name].append(sum(answer.tokens for answer in answers) / seconds)
            firsts[name].append(median(answer.ttft_ms for answer in answers))
    row: dict[str, Any] = {"streams": streams}
    print(f"{streams} streams at once")
    for name in sides:
        pairs = zip(speeds[name], speeds["engine"], strict=True)
        gaps = [own - base for own, base in zip(firsts[name], firsts["engine"], strict=True)]
        row[name] = {
            "tokens_per_second": round(median(speeds[name]), 1),
            "ratio": round(median(own / base for own, base in pairs), 3),
            "ttft_ms": round(median(firsts[name]), 1),
            "ttft_more_ms": round(median(gaps), 1),
            "cpu_share": round(median(shares[name]), 4),
        }
        print(
            f"  {name:<10}{row[name]['tokens_per_second']:>8} tokens/s ({row[name]['ratio']}; "
            f"target {SPEED}), first token {row[name]['ttft_ms']} ms "
            f"({row[name]['ttft_more_ms']:+}; target +{MORE_MS:.0f}), "
            f"its own process {row[name]['cpu_share']:.1%} of the processors"
        )
    return row


async def one_token(sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    """Requests a second that make one token each, four at a time."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in turned(sides, number):

            async def one(i: int, side: Side = side) -> None:
                await ask(side, f"Is number {i % 10} even?", 1)

            began = time.perf_counter()
            await at_once(4, 60, one)
            rates[name].append(60 / (time.perf_counter() - began))
    result = {}
    for name in sides:
        ratio = median(own / base for own, base in zip(rates[name], rates["engine"], strict=True))
        result[name] = {"per_second": round(median(rates[name]), 1), "ratio": round(ratio, 3)}
    print(f"answers of one token a second: {result} (target {ONE_TOKEN})")
    return result


def cpu_seconds(side: Side) -> float:
    """What the side's process has worked, the engine's child of an API not counted."""
    times = psutil.Process(side.pid).cpu_times()
    return float(times.user + times.system)


def turned(sides: dict[str, Side], number: int) -> list[tuple[str, Side]]:
    """The sides in another order each round: who is first is warmest."""
    rows = list(sides.items())
    place = number % len(rows)
    return rows[place:] + rows[:place]


if __name__ == "__main__":
    main()
