"""``housecall ls`` and ``show``: verbs that only look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from housecall.artifact import MANIFEST, Artifact
from housecall.errors import NotFound
from housecall.lineage import (
    RECIPE,
    chain,
    find_run,
    is_unclear,
    list_runs,
    served_model,
)
from housecall.records import AnswerRecord
from housecall.run_report import run_info
from housecall.sessions import SessionStore
from housecall.settings import load_settings

_HIDDEN = (
    *("kind", "path", "sha256", "created", "housecall", "versions"),
    *("failed", "passed", "figures", "causes"),
)


def ls(as_json: bool) -> None:
    """Runs and their variants; one that is broken hides none of the others."""
    rows = [_run_row(path) for path in list_runs()]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo("no run here yet: make one with  housecall run demo")
        return
    table = Table("run", "promoted", "variants", "made")
    for row in rows:
        names = ", ".join(v["format"] for v in row["variants"])
        table.add_row(row["name"], row["promoted"] or "-", names or "-", row["created"] or "-")
    Console().print(table)
    for row in rows:
        if "broken" in row:
            click.echo(f"housecall: {row['broken']}", err=True)


def _run_row(path: Path) -> dict[str, Any]:
    info = run_info(path)
    row: dict[str, Any] = {
        "name": path.name,
        "path": str(path),
        "promoted": info.promoted and info.promoted.format,
        "created": info.created,
        "variants": [v.model_dump() for v in info.variants],
    }
    return row if info.problem is None else {**row, "broken": info.problem}


def show(what: str, as_json: bool) -> None:
    """The chain behind an answer, an artifact, or a run's promoted variant."""
    path = Path(what)
    if what.startswith("ans_"):
        store = SessionStore(load_settings().database)
        try:
            record = store.answer(what)
        finally:
            store.close()
        if as_json:
            click.echo(record.model_dump_json(indent=2))
        else:
            print_chain(record)
        return
    if (path / MANIFEST).is_file():
        entries: Sequence[Mapping[str, Any]] = chain(Artifact.load(path))
    elif (path / RECIPE).is_file() or not path.exists():
        entries = served_model(str(find_run(what)), ungated=True).lineage
    else:
        raise NotFound(f"{what}: neither a run, an artifact nor an answer's id")
    if as_json:
        click.echo(json.dumps(list(entries), indent=2, ensure_ascii=False))
    else:
        _print_entries(entries)


def print_chain(record: AnswerRecord) -> None:
    """An answer and what stands behind it, as a table."""
    click.echo(f"answer {record.id}  {record.created_at:%Y-%m-%d %H:%M} UTC")
    gated = "passed its gate" if record.model["gated"] else "NOT GATED"
    click.echo(
        f"  model {record.model['name']} {record.model['format']} ({gated}), "
        f"sha256 {record.model['sha256']}"
    )
    guard = record.guard
    click.echo(f"  guard {record.guard_version}: {guard['level']}")
    _print_entries(record.lineage)


def _print_entries(entries: Sequence[Mapping[str, Any]]) -> None:
    for made in dict.fromkeys(_made_with(entry) for entry in entries):
        click.echo(f"  made with {made}")
    for depth, entry in enumerate(entries):
        mark = "" if depth == 0 else "<- "
        click.echo(f"  {mark}{entry['kind']:<9} {entry['path']:<24} sha256 {entry['sha256']}")
        facts = {k: v for k, v in entry.items() if k not in _HIDDEN}
        if "passed" in entry:
            facts["verdict"] = "passed" if entry["passed"] else "; ".join(entry["failed"])
        if entry["kind"] in ("base", "dataset") and is_unclear(str(entry["licence"])):
            facts["WARNING"] = "the licence is unclear"
        line = ", ".join(f"{k} {_short(v)}" for k, v in facts.items() if v is not None)
        if line:
            click.echo(f"       {line}")


def _made_with(entry: Mapping[str, Any]) -> str:
    """Program, commit and packages, in one line: mostly the same for all of a run."""
    made = entry["housecall"]
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return f"housecall {made['version']} (commit {made['commit'] or 'unknown'}), {versions}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_short(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value)
