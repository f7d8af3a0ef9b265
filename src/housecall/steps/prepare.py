"""prepare: a data set into train, validation and test files that training can trust.

The source is read once, row by row; what stays in memory of a row is its signatures and a few
numbers, so 100,000 rows need some hundred megabytes. Rows that can't be used go to
``rejected.jsonl`` with the reason; nothing disappears silently.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy import int64
from numpy.typing import NDArray

from housecall.artifact import Artifact, Draft, create, hash_file, write_json
from housecall.chat_template import encode
from housecall.config import DataConfig
from housecall.data_report import describe, to_markdown
from housecall.errors import DataError
from housecall.progress import bar
from housecall.row_store import RowStore
from housecall.sieve import Messages, Sieve
from housecall.sources import read_rows, source_hash, source_name
from housecall.spool import Spool
from housecall.steps.base import HfTokenizer, load_template

SPLITS = ("train", "validation", "test")
_LICENCES = {"builtin:starter": "Apache-2.0, written for demonstration, not reviewed by clinicians"}
_SMALLEST = 10

Splits = dict[str, list[int]]
"""The rows of each split, by their place among those that were kept."""


def run(config: DataConfig, base: Artifact, out: Path) -> Artifact:
    """Read, clean and split the data set for the tokenizer of ``base``.

    Raises DataError when the source can't be read or too few rows are left.
    """
    with (
        create(
            out, "dataset", config=config.model_dump(mode="json"), parents=[base], seed=config.seed
        ) as draft,
        Spool(draft.path / ".rows") as spool,
    ):
        sieve = Sieve(config, _token_counter(base.path))
        rows = RowStore(spool)
        with bar("prepare", config.limit) as progress:
            for row in read_rows(config):
                rows.add(sieve.sift(row))
                progress.advance()
        rows.drop_duplicates(config.near_duplicate)
        _refuse_too_few(config, rows)
        clusters = rows.clusters(config.near_duplicate)
        splits = split(rows.places, clusters, config)
        _write(draft.path, rows, splits)
        sizes = Counter(clusters[rows.places].tolist())
        report = _report(config, rows, sieve, splits) | {
            "clusters": {"count": len(sizes), "largest": max(sizes.values())}
        }
        _write_report(draft, config, report)
        licence = config.licence or _LICENCES.get(config.source, "not stated")
        draft.licences["data"] = {"source": source_name(config), "licence": licence}
        draft.metrics["system_prompt"] = rows.system_prompt()
    return Artifact.load(out, verify=False)


def _refuse_too_few(config: DataConfig, rows: RowStore) -> None:
    if len(rows.places) < _SMALLEST:
        why = ", ".join(f"{n} {reason}" for reason, n in rows.reasons.most_common())
        raise DataError(
            f"data.source {config.source}: {len(rows.places)} rows can be used, {_SMALLEST} are "
            f"needed ({why or 'the source is empty'})"
        )


def split(places: Sequence[int], clusters: NDArray[int64], config: DataConfig) -> Splits:
    """Shuffled by the seed; validation and test get ``held_out`` each, train the rest.

    A cluster goes to one split whole; one that is too large for what is left of validation and
    test goes to train. Raises DataError when that leaves a split empty.
    """
    order = list(places)
    random.Random(config.seed).shuffle(order)
    members: dict[int, list[int]] = {}
    for place in order:
        members.setdefault(int(clusters[place]), []).append(place)
    size = max(1, round(len(order) * config.held_out))
    parts: Splits = {"validation": [], "test": [], "train": []}
    for cluster in members.values():
        name = next(
            (n for n in ("validation", "test") if len(parts[n]) + len(cluster) <= size), "train"
        )
        parts[name] += cluster
    empty = [name for name in SPLITS if not parts[name]]
    if empty:
        raise DataError(
            f"data.source {config.source}: nothing is left for {' and '.join(empty)}: the "
            f"{len(order)} rows are {len(members)} clusters of like questions or answers, and a "
            "cluster stays together: give more varied rows, or a higher data.near_duplicate"
        )
    place_in_order = {place: i for i, place in enumerate(order)}
    return {name: sorted(parts[name], key=place_in_order.__getitem__) for name in SPLITS}


def _token_counter(folder: Path) -> Callable[[Messages], int]:
    tokenizer = HfTokenizer(folder)
    template = load_template(folder, tokenizer)

    def count(messages: Messages) -> int:
        return len(encode(template.segments(messages), tokenizer))

    return count


def _write(folder: Path, rows: RowStore, splits: Splits) -> None:
    for name, places in splits.items():
        _write_lines(folder / f"{name}.jsonl", rows.lines(places))
    _write_lines(folder / "rejected.jsonl", rows.rejected_lines())


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(lines)


def _report(config: DataConfig, rows: RowStore, sieve: Sieve, splits: Splits) -> dict[str, Any]:
    return {
        "source": source_name(config),
        "source_sha256": source_hash(config),
        "seed": config.seed,
        "near_duplicate": config.near_duplicate,
        "rows": {
            "read": len(rows.spool),
            "kept": len(rows.places),
            "rejected": dict(rows.reasons.most_common()),
        },
        "splits": {
            name: {"rows": len(places), "tokens": sum(rows.facts.tokens[p] for p in places)}
            for name, places in splits.items()
        },
        "mended": dict(sieve.mended.most_common()),
        "masked": dict(sieve.masked.most_common()),
        **describe(rows.facts, rows.places),
    }


def _write_report(draft: Draft, config: DataConfig, report: dict[str, Any]) -> None:
    """The report as files, and what the manifest says of it."""
    write_json(draft.path / "report.json", report)
    (draft.path / "report.md").write_text(to_markdown(report), encoding="utf-8")
    splits = report["splits"]
    several = sum(rows for turns, rows in report["turns"].items() if turns != "1")
    draft.metrics |= {
        "source": report["source"],
        "source_sha256": report["source_sha256"],
        "content_sha256": _content_hash(draft.path, config, report),
        "rows": {name: part["rows"] for name, part in splits.items()},
        "tokens": {name: part["tokens"] for name, part in splits.items()},
        "several_turns": several,
        "rejected": report["rows"]["rejected"],
        "mended": report["mended"],
        "masked": report["masked"],
        "clusters": report["clusters"],
    }


def _content_hash(folder: Path, config: DataConfig, report: dict[str, Any]) -> str:
    """What two preparations share when they made the same of the same, whenever and wherever.

    SHA-256 of the config (the source by its name and hash, not its path) and of all files' hashes.
    """
    settings = config.model_dump(mode="json") | {
        "source": [report["source"], report["source_sha256"]]
    }
    files = {p.name: hash_file(p) for p in sorted(folder.iterdir()) if not p.name.startswith(".")}
    text = json.dumps({"config": settings, "files": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
