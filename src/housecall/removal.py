"""Taking a run away, but never one that something else stands on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from housecall.errors import ArtifactError, ConfigError, HousecallError
from housecall.lineage import RECIPE, RUNS, list_runs
from housecall.locks import held
from housecall.recipe import load_recipe


def remove_run(run: Path) -> None:
    """Remove a run's folder, all at once.

    Raises ConfigError naming what needs it: another run whose recipe points into it, a run inside
    it, a server, or a pipeline that is working on it.
    """
    if run.is_symlink():
        raise ConfigError(f"{run}: is a link to {run.resolve()}: remove the link, or name that run")
    if reason := next(_needs(run), None):
        raise ConfigError(f"{run}: is not removed: {reason}")
    gone = run.with_name(f".{run.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)  # what an interrupted removal has left
    run.rename(gone)
    shutil.rmtree(gone)


def _needs(run: Path) -> Iterator[str]:
    """Why the run must stay."""
    folder = run.resolve()
    inside = next((f.parent for f in folder.rglob(RECIPE) if f.parent != folder), None)
    if inside is not None:
        yield f"the run {inside} lies in it"
    others = {p.resolve() for where in (RUNS, folder.parent) for p in list_runs(where)} - {folder}
    for other in sorted(others):
        for key, source in _sources(other):
            if source.is_relative_to(folder):
                yield f"{key} of the run {other} is {source}"
    if held(run, "serving"):
        yield "a server is using it: stop that first"
    if held(run, "working"):
        yield "another housecall is working on it"


def _sources(run: Path) -> Iterator[tuple[str, Path]]:
    """Files of this machine that a run was made from, as far as its recipe tells."""
    try:
        recipe = load_recipe(str(run / RECIPE))
    except (HousecallError, ArtifactError):
        return  # a recipe that can't be read points nowhere
    for key, source in (("base.source", recipe.base.source), ("data.source", recipe.data.source)):
        if not source.startswith(("hub:", "wheel:", "builtin:")):
            yield key, Path(source).expanduser().resolve()
