"""Rows to read by hand: kept ones, rejected ones by reason, or masked places, by a fixed seed.

    python benchmarks/sample_rows.py kept RUN/dataset --count 100
    python benchmarks/sample_rows.py rejected RUN/dataset --reason "a list is missing"
    python benchmarks/sample_rows.py masked FILE... --columns input output --count 200

The texts go to the terminal only. FILE is a .json, .jsonl, .csv or .parquet file.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AROUND = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("kept", "rejected", "masked"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--columns", nargs="+", default=["input", "output"])
    parser.add_argument("--reason")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261124)
    arguments = parser.parse_args()
    if arguments.what == "kept":
        found = list(kept(arguments.paths[0]))
    elif arguments.what == "rejected":
        found = list(rejected(arguments.paths[0], arguments.reason))
    else:
        found = list(masked(arguments.paths, arguments.columns))
    chosen = random.Random(arguments.seed).sample(found, min(arguments.count, len(found)))
    print(f"{len(chosen)} of {len(found)}")
    for number, text in enumerate(chosen, start=1):
        print(f"{number:>3} {text}")


def kept(dataset: Path) -> Iterator[str]:
    rows = [row for name in ("train", "validation", "test") for row in lines(dataset, name)]
    return (as_text(row) for row in sorted(rows, key=lambda row: row["row"]))


def rejected(dataset: Path, reason: str | None) -> Iterator[str]:
    rows = lines(dataset, "rejected")
    return (f"[{r['reason']}] {as_text(r)}" for r in rows if reason in (None, r["reason"]))


def masked(files: list[Path], columns: list[str]) -> Iterator[str]:
    """Every place that is masked, with its surroundings."""
    from housecall.privacy import find_personal
    from housecall.readers import read_file

    for file in files:
        texts = ((n, str(row.get(c) or "")) for n, row in enumerate(read_file(file), 1)
                 for c in columns)  # fmt: skip
        for number, text in texts:
            for place in find_personal(text):
                before = text[max(0, place.start - AROUND) : place.start]
                after = text[place.end : place.end + AROUND // 2]
                it = f"{before}>>{text[place.start : place.end]}<<{after}"
                yield f"{file.stem} {number} {place.kind}: {' '.join(it.split())}"


def lines(dataset: Path, name: str) -> list[dict[str, Any]]:
    text = (dataset / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def as_text(row: dict[str, Any]) -> str:
    said = [
        f"{m['role']}: {m['content']}" for m in row.get("messages", ()) if m["role"] != "system"
    ]
    return " ".join(f"{row['row']} {' | '.join(said) or row.get('text')}".split())


if __name__ == "__main__":
    main()
