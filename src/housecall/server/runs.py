"""The runs on this machine: their tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.responses import FileResponse

from housecall.errors import NotFound
from housecall.lineage import RECIPE, RUNS, list_runs
from housecall.run_report import RunInfo, RunReport, plot_file, run_info, run_report
from housecall.server.errors import responses
from housecall.server.streams import Served
from housecall.server.wire import RunList
from housecall.types import ServedModel

router = APIRouter(prefix="/runs", tags=["runs"])

_Name = Annotated[str, InPath(description="A name of `GET /runs`.", examples=["demo"])]
_Plot = Annotated[
    str, InPath(description="A `path` of the run's `plots`.", examples=["adapter/loss.png"])
]
# A run may come from a stranger, and an SVG can hold a script.
_PLOT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/png", "image/svg+xml")
        },
    }
}


@router.get("", responses=responses(401))
def runs(answerer: Served) -> RunList:
    """The run that is served, then those of `runs/` and those beside it, the newest first."""
    found = _known(answerer.model)
    return RunList(runs=[_info(path, answerer.model) for path in found.values()])


@router.get("/{name}", responses=responses(401, 404))
def run(name: _Name, answerer: Served) -> RunReport:
    """One run: what each variant costs and lost, how training went, the bench, the lineage."""
    path = _find(name, answerer.model)
    return run_report(path, served=_is_served(path, answerer.model))


@router.get(
    "/{name}/plots/{plot:path}",
    response_class=FileResponse,
    responses=responses(401, 404) | _PICTURE,
)
def plot(name: _Name, plot: _Plot, answerer: Served) -> FileResponse:
    """One picture of a run."""
    found = plot_file(_find(name, answerer.model), plot)
    if found is None:
        raise NotFound(f"the run {name!r} has no plot {plot!r}")
    file, kind = found
    return FileResponse(file, media_type=kind, headers=_PLOT_HEADERS)


def _info(path: Path, model: ServedModel) -> RunInfo:
    return run_info(path, served=_is_served(path, model))


def _find(name: str, model: ServedModel) -> Path:
    """A run by its name, which is looked up and never made a path of. Raises NotFound."""
    known = _known(model)
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise NotFound(f"there is no run {name!r} here (runs: {names})")
    return known[name]


def _known(model: ServedModel) -> dict[str, Path]:
    """Runs by name; of two with one name the served one counts, then the one in ``runs/``."""
    found: dict[str, Path] = {}
    for path in _places(model):
        found.setdefault(path.resolve().name, path)
    return found


def _places(model: ServedModel) -> Iterator[Path]:
    own = _folder(model)
    if own is not None:
        yield own
    yield from list_runs(RUNS)
    if own is not None:
        yield from list_runs(own.parent)


def _folder(model: ServedModel) -> Path | None:
    """The folder of the run that is served; a bare file or another server's model has none."""
    if model.run is None or len(model.path.parents) < 3:
        return None
    folder = model.path.parents[2]  # of runs/NAME/variants/FORMAT/model.gguf
    return folder if (folder / RECIPE).is_file() else None


def _is_served(path: Path, model: ServedModel) -> bool:
    own = _folder(model)
    return own is not None and own.resolve() == path.resolve()
