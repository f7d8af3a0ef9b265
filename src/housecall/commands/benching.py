"""``housecall bench``: measure a run, look quickly, compare two, measure another server too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table as RichTable

from housecall.artifact import MANIFEST
from housecall.bench.base import Subject
from housecall.bench.compare import as_json as comparison_json
from housecall.bench.compare import notes
from housecall.bench.compare import table as comparison_table
from housecall.bench.report import REPORT, Report, read_report
from housecall.bench.rounds import make_visits
from housecall.bench.tables import Table, in_short
from housecall.bench.texts import PAGE
from housecall.config import BenchConfig
from housecall.engines import engine_class
from housecall.errors import ArtifactError, ConfigError
from housecall.lineage import PROMOTED, find_run, read_promoted
from housecall.locks import working
from housecall.pipeline import Run, change_run, execute
from housecall.progress import console
from housecall.settings import load_settings
from housecall.steps.bench import Bench
from housecall.steps.bench import run as measure

FULL, QUICK, AGAINST = "bench", "bench-quick", "bench-against"


def bench(
    name: str | None,
    overrides: tuple[str, ...],
    *,
    quick: bool,
    against: str | None,
    against_model: str | None,
    as_json: bool,
) -> None:
    """Measure, and show the report."""
    needed = (PROMOTED,) if against is not None else (f"gate/{MANIFEST}",)
    made = change_run(find_run(name, needs=needed), overrides)
    config = made.recipe.bench.quick() if quick else made.recipe.bench
    if against is not None:
        out = _against(made, config, against, against_model or "", quick)
    elif quick:
        out = made.path / QUICK
        names = ("base", *made.recipe.quantize.formats)
        with working(made.path):
            measure(Bench(made.path, names, quick=True), config, out)
    else:
        out = made.path / FULL
        execute(made, start="bench", stop="bench")
    _show(read_report(out), out, as_json)


def compare(name: str | None, other: str, as_json: bool) -> None:
    """Two runs that were measured, side by side."""
    reports = (f"{FULL}/{REPORT}", f"{QUICK}/{REPORT}")
    runs = [find_run(n, needs=reports) for n in (name, other)]
    titles = [run.resolve().name for run in runs]
    if titles[0] == titles[1]:  # one run on two machines
        titles = [str(run) for run in runs]
    ours, theirs = (
        # A run that was copied or moved has the name that it has now.
        _measured(run).model_copy(update={"run": title})
        for run, title in zip(runs, titles, strict=True)
    )
    if as_json:
        click.echo(json.dumps(comparison_json(ours, theirs), indent=2, ensure_ascii=False))
        return
    _print(comparison_table(ours, theirs))
    for note in notes(ours, theirs):
        console().print(note)


def _against(made: Run, config: BenchConfig, url: str, model: str, quick: bool) -> Path:
    """The promoted variant and a server, in the same rounds."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"--against {url}: give an address such as http://127.0.0.1:8080")
    if not (made.path / PROMOTED).is_file():
        raise ArtifactError(
            f"{made.path}: nothing has passed the gate: run  housecall gate {made.path.name}"
        )
    key = load_settings().engine_key
    asyncio.run(_reach(url, key, model))
    ours = str(read_promoted(made.path)["format"])
    server = Subject(f"server {urlsplit(url).netloc.rpartition('@')[2]}", "server", url, None)
    what = Bench(made.path, (ours,), servers=(server,), reference=ours, quick=quick)
    out = made.path / AGAINST
    with working(made.path):
        measure(what, config, out, make_visits(key=key, model=model))
    return out


async def _reach(url: str, key: str, model: str) -> None:
    """Find out whether a server is there before minutes of measuring. Raises HousecallError."""
    engine = engine_class("remote")(url, key=key, model=model or None)
    try:
        await engine.start()
    finally:
        await engine.close()


def _measured(run: Path) -> Report:
    """The report of a run, of a quick look where there is no other."""
    full = run / FULL / REPORT
    return read_report(run / (FULL if full.is_file() or not (run / QUICK).is_dir() else QUICK))


def _show(report: Report, out: Path, as_json: bool) -> None:
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    _print(in_short(report))
    for warning in report.warnings:
        console().print(f"[yellow]{warning}[/yellow]")
    console().print(f"the whole report: {out / PAGE}")


def _print(table: Table) -> None:
    shown = RichTable(title=table.title, caption=table.note)
    for number, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)
