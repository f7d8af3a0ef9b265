"""A conversation of 200 turns in a window of 2,048 tokens: what each turn costs, what is kept.

    python benchmarks/long_chat.py runs/demo

Starts `housecall serve` on the run with a database of its own and talks to it over HTTP. First one
conversation with answers of 48 tokens: tokens of the prompt that were really read, and time to the
first token as the client sees it. Then 13 conversations of 200 turns whose turn 2 tells of an
allergy (one of them corrected in turn 9), with answers of 4 tokens: is it in the window at the end?
Prints tables, and JSON as its last line.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx

N_CTX = 2048
TURNS = 200
EARLY, LATE = (5, 20), (150, 200)  # turns, both ends included
TARGET = 1.3

PHRASES = {
    "I'm allergic to penicillin.": "penicillin",
    "I have a bad latex allergy, by the way.": "latex",
    "Penicillin brings me out in hives.": "Penicillin",
    "The doctors told me never to take ibuprofen again.": "ibuprofen",
    "My throat swells up whenever I eat peanuts.": "peanuts",
    "I once had an anaphylactic reaction to shellfish.": "shellfish",
    "Allergies: sulfa drugs": "sulfa",
    "I can't tolerate codeine at all.": "codeine",
    "Last time they gave me amoxicillin I couldn't breathe.": "amoxicillin",
    "I carry an EpiPen because of bee stings.": "bee stings",
    "Aspirin nearly killed me once.": "Aspirin",
    "Is there anything I should avoid, since I'm allergic to eggs?": "eggs",
}
CORRECTED = ("I'm allergic to penicillin.", "Sorry, it was not penicillin, it was amoxicillin.")
CORRECTED_TURN = 9

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
    parser.add_argument("--latency-only", action="store_true", help="leave the allergies out")
    arguments = parser.parse_args()
    with serving(arguments.run) as client:
        measured = converse(client, arguments.turns, [], max_tokens=48)
        kept = {} if arguments.latency_only else remembered(client, arguments.turns)
    report(measured, kept)


@contextmanager
def serving(run: str) -> Iterator[httpx.Client]:
    """A server of its own for the run, stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "housecall", "serve", str(Path(run).resolve())]
        command += ["--port", str(port), "--ctx", str(N_CTX), "--parallel", "2", "--ungated"]
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


def converse(
    client: httpx.Client, turns: int, said: list[tuple[int, str]], *, max_tokens: int
) -> list[Turn]:
    """A conversation; ``said`` are the messages of certain turns, the others are talk."""
    given = dict(said)
    session: dict[str, str] = {}
    measured = []
    for turn in range(1, turns + 1):
        talk = TALK[turn % len(TALK)].format(TOPICS[turn // len(TALK) % len(TOPICS)])
        body = {"message": given.get(turn, talk), "max_tokens": max_tokens, "seed": turn}
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


def remembered(client: httpx.Client, turns: int) -> dict[str, str]:
    """What is pinned at the end of conversations that begin with an allergy, empty if nothing."""

    def last(said: list[tuple[int, str]], word: str) -> str:
        context = converse(client, turns, said, max_tokens=4)[-1].context
        return next((p["text"] for p in context["pinned"] if word in p["text"]), "")

    with ThreadPoolExecutor(2) as threads:
        kept = {
            phrase: threads.submit(last, [(2, phrase)], word) for phrase, word in PHRASES.items()
        }
        first, second = CORRECTED
        said = [(2, first), (CORRECTED_TURN, second)]
        kept[f"{first} ... {second}"] = threads.submit(last, said, "allergic to amoxicillin")
        return {phrase: result.result() for phrase, result in kept.items()}


def report(measured: list[Turn], kept: dict[str, str]) -> None:
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
    print(f"\nin the window at turn {len(measured)}:")
    for phrase, text in kept.items():
        print(f"  {'yes' if text else 'NO ':<4}{phrase}  ->  {text}")
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
                "allergies_kept": sum(map(bool, kept.values())),
                "allergies": len(kept),
                "per_turn": [
                    [round(t.ttft_ms, 1), t.prompt_tokens, t.read_tokens] for t in measured
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
