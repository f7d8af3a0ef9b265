"""``housecall run`` and the single steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from housecall.artifact import write_text
from housecall.errors import ArtifactError, ConfigError, DataError
from housecall.lineage import PROMOTED, RECIPE, RUNS, find_run, read_promoted
from housecall.machine import process_rank
from housecall.model_card import CARD
from housecall.pipeline import STEPS, Run, change_run, execute, open_run
from housecall.progress import console
from housecall.recipe import load_recipe
from housecall.training_summary import training_lines


class Report:
    """Collects what each step took."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def __call__(self, name: str, seconds: float, skipped: bool) -> None:
        """Take down one step."""
        self.steps.append({"step": name, "seconds": round(seconds, 1), "skipped": skipped})


def run(
    recipe: str,
    out: str | None,
    overrides: tuple[str, ...],
    start: str | None,
    stop: str | None,
    as_json: bool,
) -> None:
    """The pipeline."""
    for step_name in (start, stop):
        if step_name is not None and step_name not in STEPS:
            raise click.UsageError(f"no step {step_name!r}: choose one of {', '.join(STEPS)}")
    found = load_recipe(recipe, overrides)
    made = open_run(Path(out) if out else RUNS / found.name, found)
    report = Report()
    last = stop or STEPS[-1]
    if start and start != STEPS[0]:
        execute(made, stop=STEPS[STEPS.index(start) - 1], report=report)
    execute(made, start=start or STEPS[0], stop=last, force=start is not None, report=report)
    _print(made, report, as_json)


def step(name: str, run_name: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """One step of a run that exists."""
    path = find_run(run_name)
    before = (path / RECIPE).read_text(encoding="utf-8")
    made = change_run(path, overrides)
    report = Report()
    try:
        execute(made, start=name, stop=name, report=report)
    except (ArtifactError, ConfigError, DataError):
        if overrides:  # a value that could not be used is not kept
            write_text(path / RECIPE, before)
        raise
    _print(made, report, as_json)


def _print(made: Run, report: Report, as_json: bool) -> None:
    if process_rank() > 0:
        return
    summary = summarise(made)
    if as_json:
        click.echo(json.dumps({**summary, "steps": report.steps}, indent=2, ensure_ascii=False))
        return
    if summary["variants"]:
        Console().print(_table(summary))
    if any(done["step"] == "train" and not done["skipped"] for done in report.steps):
        for line in training_lines(summary["training"]):
            console().print(line)
    took = ", ".join(
        f"{s['step']} {'done before' if s['skipped'] else format(s['seconds'], '.0f') + ' s'}"
        for s in report.steps
    )
    console().print(f"{made.path}: {took}")
    if (made.path / CARD).is_file():
        console().print(f"all figures: {made.path / CARD}")


def summarise(made: Run) -> dict[str, Any]:
    """What is known of a run so far: losses of training, and each variant's figures."""
    return {
        "run": made.path.name,
        "path": str(made.path),
        "promoted": _promoted(made),
        "training": _metrics(made, "adapter"),
        "dataset": _metrics(made, "dataset"),
        "variants": _variants(made),
    }


def _promoted(made: Run) -> str | None:
    there = (made.path / PROMOTED).is_file()
    return str(read_promoted(made.path)["format"]) if there else None


def _metrics(made: Run, name: str) -> dict[str, Any]:
    try:
        return dict(made.artifact(name).metrics)
    except ArtifactError:
        return {}


def _variants(made: Run) -> list[dict[str, Any]]:
    gate, bench = _metrics(made, "gate"), _metrics(made, "bench")
    speed = {v["format"]: v["tokens_per_second"] for v in bench.get("variants", ())}
    judged = {v["format"]: v for v in gate.get("variants", ())}
    rows = []
    for fmt in made.recipe.quantize.formats:
        try:
            size = made.artifact(f"variants/{fmt}").size
        except ArtifactError:
            continue
        verdict = judged.get(fmt, {})
        rows.append(
            {
                "format": fmt,
                "bytes": size,
                **{key: verdict.get(key) for key in ("loss", "kl_mean", "agreement", "passed")},
                "figures": verdict.get("figures"),
                "failed": verdict.get("failed", []),
                "causes": verdict.get("causes", []),
                "tokens_per_second": speed.get(fmt),
            }
        )
    reference = next((r["bytes"] for r in rows if r["format"] == "fp16"), None)
    for row in rows:
        row["smaller"] = None if reference is None else 1 - row["bytes"] / reference
    return rows


def _table(summary: dict[str, Any]) -> Table:
    table = Table(title=f"{summary['run']}: what each variant costs and keeps")
    for name, justify in (
        ("variant", "left"),
        ("size MB", "right"),
        ("smaller", "right"),
        ("loss", "right"),
        ("KL", "right"),
        ("tokens/s", "right"),
        ("gate", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in summary["variants"]:
        promoted = row["format"] == summary["promoted"]
        table.add_row(
            row["format"],
            f"{row['bytes'] / 1e6:.1f}",
            _number(row["smaller"], ".0%"),
            _number(row["loss"], ".3f"),
            _number(row["kl_mean"], ".4f"),
            _number(row["tokens_per_second"], ".1f"),
            _verdict(row) + (", promoted" if promoted else ""),
            style="bold" if promoted else None,
        )
    return table


def _verdict(row: dict[str, Any]) -> str:
    if row["passed"] is None:
        return "not judged"
    return "passed" if row["passed"] else "refused: " + row["failed"][0]


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
