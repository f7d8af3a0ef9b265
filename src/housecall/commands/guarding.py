"""``housecall guard``: the filter alone, on a text, on a file, and measured."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import click

from housecall.errors import DataError
from housecall.guard import MedicalGuard
from housecall.guard.evaluation import Evaluation, Share, evaluate, read_cases, read_row
from housecall.settings import load_settings


def guard_text(text: str, as_json: bool) -> None:
    """What the guard finds in a message."""
    result = _guard().check(text)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2, ensure_ascii=False))
        return
    click.echo(f"level: {result.level}")
    click.echo(f"language: {result.language}{'' if result.covered else ' (no rules for it)'}")
    for match in result.matches:
        click.echo(f"  {match.rule} ({match.assertion}): {match.text!r}")
    if result.message:
        click.echo(result.message)


def guard_file(file: str) -> None:
    """One JSON object a line in, the same with ``guard`` added out."""
    guard = _guard()
    try:
        with click.open_file(file, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    row = read_row(line, f"{file}:{number}")
                    row["guard"] = guard.check(row["text"]).as_dict()
                    click.echo(json.dumps(row, ensure_ascii=False))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: can't be read: {error}") from error


def guard_eval(file: str | None, misses: bool, as_json: bool) -> None:
    """Recall and false alarms on labelled messages; by default those that the rules know."""
    shipped = Path(str(resources.files("housecall") / "data" / "guard_dev.jsonl"))
    guard = _guard()
    found = evaluate(guard, read_cases(Path(file) if file else shipped))
    if as_json:
        click.echo(json.dumps({"guard_version": guard.version} | found.as_dict(), indent=2))
        return
    _print_table(found)
    if misses:
        for kind, cases in (("missed", found.missed), ("false alarm", found.alarmed)):
            for case in cases:
                click.echo(f"{kind}: {case.id}: {case.text}")


def _print_table(found: Evaluation) -> None:
    click.echo(f"{'':<44}{'recall':<34}false alarms")
    groups = dict.fromkeys([*found.recall, *found.false_alarms])
    for group in sorted(groups, key=lambda name: (name != "all", name)):
        shares = (found.recall.get(group), found.false_alarms.get(group))
        click.echo(f"{group:<44}{_shown(shares[0]):<34}{_shown(shares[1])}".rstrip())
    click.echo(f"{'precision':<44}{_shown(found.precision)}")


def _shown(share: Share | None) -> str:
    if share is None or share.interval is None:
        return ""
    low, high = share.interval
    percent = 100 * share.count / share.total
    return f"{percent:5.1f} % [{100 * low:.1f}-{100 * high:.1f}] {share.count}/{share.total}"


def _guard() -> MedicalGuard:
    settings = load_settings()
    return MedicalGuard.load(
        settings.country, off_topic=settings.off_topic, learned=settings.guard_learned
    )
