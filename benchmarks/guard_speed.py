"""How long the guard takes: loading, messages of 200 words, 32 kB made to be slow.

The first of these in a language pays for compiling its rules, which is told apart.

    python benchmarks/guard_speed.py [icliniq_2k.jsonl]

One thread, CPU time, so that a busy machine disturbs little. A table for people, the last line is
JSON. The messages of 200 words are made from the shipped development texts, so that they hold as
many findings as messages of that length ever will; those of iCliniq are the first 200 words of
patients' questions of 150 words or more.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from importlib import resources
from pathlib import Path
from random import Random
from time import process_time

from housecall.guard import MedicalGuard

WORDS, MESSAGES, LENGTH = 200, 400, 32_768
UNITS = (
    "a",
    "no ",
    "i ",
    "can not ",
    "chest pain ",
    "pain in my chest and ",
    "my father had no pain but ",
    "i want to die ",
    "<number 38-42> 38.5 fever baby ",
    "xqzvwkjy ",
    "no chest pain, ",
    "\u80f8\u53e3\u75bc",
    "\u0928\u0939\u0940\u0902 \u0938\u093e\u0902\u0938 ",
    "dolor de pecho y no puedo respirar ",
)


def seconds(guard: MedicalGuard, text: str) -> float:
    """CPU time of reading one message."""
    begin = process_time()
    guard.check(text)
    return process_time() - begin


def middle_and_late(guard: MedicalGuard, texts: list[str]) -> tuple[float, float]:
    """Seconds for a message: the median and the 99th of 100."""
    for text in texts[:50]:
        guard.check(text)
    times = sorted(seconds(guard, text) for text in texts)
    return statistics.median(times), times[int(0.99 * len(times))]


def questions(file: Path) -> list[str]:
    """The first 200 words of the long questions in a file of dialogues."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    asked = [row["input"].split() for row in rows if isinstance(row["input"], str)]
    return [" ".join(words[:WORDS]) for words in asked if len(words) >= 150][:MESSAGES]


def main() -> None:
    """Measure and print."""
    begin = process_time()
    guard = MedicalGuard.load("US")
    load = process_time() - begin
    gc.freeze()  # as the server does
    file = resources.files("housecall") / "data" / "guard_dev.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    words = [word for row in rows if row["language"] == "en" for word in row["text"].split()]
    random = Random(7)
    starts = [random.randrange(len(words) - WORDS) for _ in range(MESSAGES)]
    texts = [" ".join(words[start : start + WORDS]) for start in starts]
    median, late = middle_and_late(guard, texts)
    told = [questions(Path(name)) for name in sys.argv[1:]]
    units = {**dict.fromkeys(UNITS, ""), "development texts": " ".join(words)}
    first, long = {}, {}
    for unit, text in units.items():
        text = ((text or unit) * LENGTH).encode()[:LENGTH].decode(errors="ignore")
        first[unit], long[unit] = seconds(guard, text), seconds(guard, text)
    print(f"load                     {1000 * load:8.1f} ms")
    print(f"{WORDS} words, median        {1000 * median:8.2f} ms")
    print(f"{WORDS} words, 99th of 100   {1000 * late:8.2f} ms")
    for unit, taken in long.items():
        print(f"32 kB of {unit!r:<44}{1000 * taken:8.1f} ms, first {1000 * first[unit]:8.1f} ms")
    for found in told:
        of_patients, of_patients_late = middle_and_late(guard, found)
        print(f"{len(found)} questions of patients, median {1000 * of_patients:6.2f} ms")
        print(f"the same, 99th of 100 {1000 * of_patients_late:11.2f} ms")
    figures = {
        "load": load, "median": median, "p99": late,
        "longest_32kB": max(long.values()), "longest_first": max(first.values()),
    }  # fmt: skip
    print(json.dumps({name: round(1000 * value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
