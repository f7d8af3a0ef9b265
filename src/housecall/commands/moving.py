"""``housecall export``, ``import`` and ``rm``: a run out, in and away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from housecall.artifact import MANIFEST
from housecall.errors import ConfigError
from housecall.exports.huggingface import export_huggingface
from housecall.exports.ollama import export_ollama
from housecall.exports.zips import export_zip, import_zip
from housecall.lineage import PROMOTED, RUNS, find_run, served_model
from housecall.removal import remove_run

_FORMATS: dict[str, tuple[str, Callable[[Path, Path], None], str]] = {
    # name: (what the run's name gets, who writes it, what to do with it)
    "zip": (".zip", export_zip, "housecall import {out}"),
    "ollama": ("-ollama", export_ollama, "cd {out} && ollama create {name} -f Modelfile"),
    "hf": ("-hf", export_huggingface, "transformers loads the folder"),
}


def export(name: str | None, fmt: str, out: str | None) -> None:
    """A run out of its folder."""
    run = find_run(name, needs=(f"gate/{MANIFEST}" if fmt == "hf" else PROMOTED,))
    ending, write, then = _FORMATS[fmt]
    target = Path(out) if out else Path(f"{run.resolve().name}{ending}")
    write(run, target)
    click.echo(f"{target}   ({then.format(out=target, name=run.resolve().name)})")


def import_(file: str, out: str | None) -> None:
    """A run in from a zip file."""
    run = import_zip(Path(file), Path(out) if out else None, RUNS)
    model = served_model(str(run))
    click.echo(f"{run}   {model.format}, sha256 {model.sha256}   (housecall serve {run})")


def remove(name: str, yes: bool) -> None:
    """A run away, after asking."""
    run = find_run(name)
    if not yes and not _confirmed(f"Remove {run} and everything in it?"):
        raise ConfigError(f"{run}: is left as it was (--yes removes it without asking)")
    remove_run(run)
    click.echo(f"removed {run}")


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody is there to answer
        click.echo(err=True)
        return False
