"""A conversation of 200 turns in a window of 2,048 tokens: what each turn costs.

    python benchmarks/long_chat.py runs/demo

Starts `housecall serve` on the run with a database of its own and talks to it over HTTP, with
answers of 48 tokens: tokens of the prompt that were really read, and time to the first token as
the client sees it. (That an allergy of turn 2 is still in the window at turn 200 is a test:
tests/server/test_long_chats.py.) Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx

N_CTX = 2048
TURNS = 200
ANSWER_TOKENS = 48
EARLY, LATE = (5, 20), (150, 200)  # turns, both ends included
TARGET = 1.3

TOPICS = ["sleep", "walking", "my knee", "coffee", "work", "the garden", "my back", "reading"]
TALK = [
    "Let's talk about {} for a moment. What should I think about first?",
    "That makes sense. Tell me a little more about {}, in plain words please.",
    "I see. And what about {} when the weather is cold and the days are short?",
    "Thank you. Would you do anything else about {} in my place?",
    "I had not thought of that. How would I notice that {} gets better?",
]


class Turn(NamedTuple):
    """One answer as it was measured."""

    ttft_ms: float
    prompt_tokens: int
    read_tokens: int
    context: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    parser.add_argument("--turns", type=int, default=TURNS)
    arguments = parser.parse_args()
    with serving(arguments.run) as client:
        measured = converse(client, arguments.turns)
    report(measured)


@contextmanager
def serving(run: str) -> Iterator[httpx.Client]:
    """A server of its own for the run, stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "housecall", "serve", str(Path(run).resolve())]
        command += ["--port", str(port), "--ctx", str(N_CTX), "--parallel", "1", "--ungated"]
        environment = {**os.environ, "HOUSECALL_DATA_DIR": folder, "HOUSECALL_QUEUE": "32"}
        log = open(Path(folder) / "server.log", "w")  # noqa: SIM115
        with log, subprocess.Popen(command, env=environment, stderr=log) as server:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                    wait_until_ready(client, server)
                    yield client
            finally:
                server.terminate()


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server did not start: try  housecall serve  with the same run")
        try:
            if client.get("/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def converse(client: httpx.Client, turns: int) -> list[Turn]:
    """A conversation."""
    session: dict[str, str] = {}
    measured = []
    for turn in range(1, turns + 1):
        talk = TALK[turn % len(TALK)].format(TOPICS[turn // len(TALK) % len(TOPICS)])
        body = {"message": talk, "max_tokens": ANSWER_TOKENS, "seed": turn}
        began = time.perf_counter()
        with client.stream("POST", "/chat", json={**body, **session, "stream": True}) as response:
            if not response.is_success:
                sys.exit(f"turn {turn}: {response.read().decode()}")
            first, done = read(response)
        usage = done["usage"]
        session = {"session_id": done["session_id"]}
        measured.append(
            Turn(
                (first - began) * 1000,
                usage["prompt_tokens"],
                usage["prompt_tokens"] - usage["cached_tokens"],
                done["context"],
            )
        )
    return measured


def read(response: httpx.Response) -> tuple[float, dict[str, Any]]:
    """When the first token came, and the whole answer."""
    first, event = 0.0, ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
            if event == "token" and not first:
                first = time.perf_counter()
        elif line.startswith("data: ") and event in ("done", "error"):
            body: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if event == "error":
                sys.exit(f"an answer failed: {body}")
            return first or time.perf_counter(), body
    sys.exit("a stream ended too early")


def report(measured: list[Turn]) -> None:
    def of(turns: tuple[int, int], name: str) -> float:
        first, last = turns
        return median(getattr(turn, name) for turn in measured[first - 1 : last])

    print(f"{'turns':<10}{'prompt':>10}{'read':>8}{'ms to first token':>20}   (medians)")
    spans = [EARLY, *((n, n + 49) for n in range(1, len(measured), 50)), LATE]
    for span in spans:
        print(
            f"{span[0]:>3}-{span[1]:<6}{of(span, 'prompt_tokens'):>10.0f}"
            f"{of(span, 'read_tokens'):>8.0f}{of(span, 'ttft_ms'):>20.0f}"
        )
    blocks = sum(
        later.context["dropped_turns"] > earlier.context["dropped_turns"]
        for earlier, later in itertools.pairwise(measured)
    )
    total = sum(turn.prompt_tokens for turn in measured)
    read_tokens = sum(turn.read_tokens for turn in measured)
    longest = max(turn.ttft_ms for turn in measured)
    print(
        f"{blocks} blocks left; of {total:,} tokens of prompts {read_tokens:,} were read "
        f"({read_tokens / total:.1%}); the slowest first token came after {longest:.0f} ms"
    )
    ratio = of(LATE, "ttft_ms") / of(EARLY, "ttft_ms")
    print(f"first token, turns {LATE} against {EARLY}: {ratio:.2f} (target: at most {TARGET})")
    print(
        json.dumps(
            {
                "turns": len(measured),
                "n_ctx": N_CTX,
                "read_tokens_median": of((1, len(measured)), "read_tokens"),
                "read_share": read_tokens / total,
                "blocks": blocks,
                "ttft_ms_early": of(EARLY, "ttft_ms"),
                "ttft_ms_late": of(LATE, "ttft_ms"),
                "ttft_ratio": ratio,
                "ttft_ms_longest": longest,
                "per_turn": [
                    [round(t.ttft_ms, 1), t.prompt_tokens, t.read_tokens] for t in measured
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
