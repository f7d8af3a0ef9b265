"""What a run holds, as tables and pictures: for ``housecall ls`` and ``GET /runs``.

All of it is read from the run's artifacts, none of their files is verified, and no path of this
machine is in it. A run that is broken says so in ``problem`` and hides none of the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from housecall.artifact import MANIFEST, Artifact
from housecall.errors import ArtifactError
from housecall.lineage import PROMOTED, chain, read_promoted

_PARTS = ("base", "dataset", "adapter", "merged", "imatrix", "gate", "bench")
"""Artifacts of a run, in the order they are made; its variants come after the merged model."""

_PLOT_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_PLOT_FOLDERS = ("adapter", "gate", "bench", ".")
_TITLES = {
    "adapter/loss": "Loss of each training step, and on held-out rows",
    "size-kl": "What each variant costs and what it loses",
}
_BROKEN = (ArtifactError, OSError, ValueError, KeyError, TypeError, AttributeError)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True)


class Promoted(_Table):
    """The variant that passed the gate and is served."""

    format: str
    sha256: str = Field(description="SHA-256 of the file that is served.")
    gate: str = Field(description="SHA-256 of the gate's manifest.")


class VariantSize(_Table):
    """A format that was made, and the bytes of its files."""

    format: str
    bytes: int


class RunInfo(_Table):
    """One run."""

    name: str
    served: bool = Field(False, description="Whether this server answers with it.")
    created: str | None = Field(None, description="When its newest artifact was made.")
    made: tuple[str, ...] = Field((), description="Its artifacts, without the variants.")
    promoted: Promoted | None = Field(None, description="Null: nothing has passed the gate.")
    variants: tuple[VariantSize, ...] = ()
    problem: str | None = Field(None, description="What can't be read of it.")


class VariantRow(VariantSize):
    """A variant with what the gate found of it and how fast it was here."""

    sha256: str = Field(description="SHA-256 of its manifest.")
    passed: bool | None = Field(None, description="Null: no gate has judged this very variant.")
    failed: tuple[str, ...] = Field((), description="The gate's rules that it broke.")
    causes: tuple[str, ...] = Field((), description="What explains that.")
    figures: Mapping[str, Any] | None = Field(
        None, description="The gate's: loss, KL divergence, accuracy and their intervals."
    )
    speed: Mapping[str, Any] | None = Field(None, description="The bench's, in short.")


class Training(_Table):
    """The course of the training."""

    metrics: Mapping[str, Any] = Field(description="Steps, tokens, losses, memory, safety.")
    curve: tuple[Mapping[str, Any], ...] = Field(
        description="One entry a step: `step`, `loss`, and `held_out_loss` where it was judged."
    )


class Plot(_Table):
    """A picture of the run; it is at `/runs/{name}/plots/{path}`."""

    path: str
    title: str
    media_type: str


class RunReport(RunInfo):
    """One run with its tables and the names of its pictures."""

    table: tuple[VariantRow, ...] = Field((), description="One row a variant.")
    training: Training | None = None
    bench: Mapping[str, Any] | None = Field(
        None, description="`report.json` of the bench: docs/bench.md."
    )
    lineage: tuple[Mapping[str, Any], ...] = Field(
        (), description="Its artifacts back to the base and the data set, with the hash of each."
    )
    plots: tuple[Plot, ...] = ()


def run_info(path: Path, *, served: bool = False) -> RunInfo:
    """A run's row in a list."""
    return RunInfo(**_info(path), served=served)


def run_report(path: Path, *, served: bool = False) -> RunReport:
    """All that is known of a run."""
    found = _info(path)
    plots = tuple(_plots(path).values())
    try:
        rest: dict[str, Any] = {
            "table": tuple(_rows(path)),
            "training": _training(path),
            "bench": _json(path / "bench" / "report.json") if _is_made(path, "bench") else None,
            "lineage": _lineage(path, found),
        }
    except _BROKEN as error:
        found["problem"] = found.get("problem") or _problem(path, error)
        rest = {}
    return RunReport(**found, **rest, plots=plots, served=served)


def plot_file(path: Path, plot: str) -> tuple[Path, str] | None:
    """The file of a run's picture and its media type; None for what is not one of its pictures."""
    found = _plots(path).get(plot)
    return None if found is None else (path / plot, found.media_type)


def _info(path: Path) -> dict[str, Any]:
    name = path.resolve().name
    try:
        variants = _variants(path)
        made = [Artifact.read(path / part) for part in _PARTS if _is_made(path, part)]
        promoted = read_promoted(path) if (path / PROMOTED).exists() else None
        return {
            "name": name,
            "created": max((str(a.manifest["created"]) for a in [*made, *variants]), default=None),
            "made": tuple(a.path.name for a in made),
            "promoted": promoted and Promoted(**promoted),
            "variants": tuple(VariantSize(format=v.path.name, bytes=v.size) for v in variants),
        }
    except _BROKEN as error:
        return {"name": name, "problem": _problem(path, error)}


def _variants(path: Path) -> list[Artifact]:
    return [Artifact.read(file.parent) for file in sorted(path.glob(f"variants/*/{MANIFEST}"))]


def _rows(path: Path) -> Iterator[VariantRow]:
    judged, timed = _by_variant(path, "gate"), _by_variant(path, "bench")
    for variant in _variants(path):
        verdict = judged.get((variant.path.name, variant.sha256), {})
        speed = timed.get((variant.path.name, variant.sha256))
        yield VariantRow(
            format=variant.path.name,
            bytes=variant.size,
            sha256=variant.sha256,
            speed=speed and {k: v for k, v in speed.items() if k != "format"},
            **{k: verdict[k] for k in ("passed", "failed", "causes", "figures") if k in verdict},
        )


def _by_variant(path: Path, step: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """What a step found, by format and hash: of a variant made anew since then it says nothing."""
    if not _is_made(path, step):
        return {}
    artifact = Artifact.read(path / step)
    hashes = {Path(p["path"]).name: p["sha256"] for p in artifact.manifest["parents"]}
    return {
        (entry["format"], hashes[entry["format"]]): _finite(entry)
        for entry in artifact.metrics["variants"]
        if entry["format"] in hashes
    }


def _training(path: Path) -> Training | None:
    if not _is_made(path, "adapter"):
        return None
    curve = path / "adapter" / "metrics.jsonl"
    # An exported run has the manifest alone.
    lines = curve.read_text(encoding="utf-8").splitlines() if curve.is_file() else []
    metrics = _finite(Artifact.read(path / "adapter").metrics)
    return Training(metrics=metrics, curve=tuple(_finite(json.loads(line)) for line in lines))


def _lineage(path: Path, info: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """From what is served, or else the last that was made of the model, back to its sources."""
    promoted = info.get("promoted")
    ends = [f"variants/{promoted.format}"] if promoted else []
    for end in (*ends, "merged", "adapter", "dataset", "base"):
        if _is_made(path, end):
            return tuple(map(_finite, chain(Artifact.read(path / end))))
    return ()


def _plots(path: Path) -> dict[str, Plot]:
    """The pictures of a run by their paths in it; a link that leads out of the run is none."""
    found: dict[str, Plot] = {}
    inside = path.resolve()
    for folder in _PLOT_FOLDERS:
        for file in sorted((path / folder).glob("*.*")):
            kind = _PLOT_TYPES.get(file.suffix)
            if kind and file.is_file() and file.resolve().is_relative_to(inside):
                place = file.relative_to(path)
                stem = place.with_suffix("").as_posix()
                title = _TITLES.get(stem, place.stem.replace("-", " ").replace("_", " "))
                found[place.as_posix()] = Plot(path=place.as_posix(), title=title, media_type=kind)
    return found


def _is_made(path: Path, part: str) -> bool:
    return (path / part / MANIFEST).is_file()


def _json(file: Path) -> Mapping[str, Any] | None:
    """A report; an exported run may lack it."""
    if not file.is_file():
        return None
    found: Mapping[str, Any] = _finite(json.loads(file.read_text(encoding="utf-8")))
    return found


def _finite(value: Any) -> Any:
    """A value as JSON can say it: what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _problem(path: Path, error: Exception) -> str:
    """What is wrong, in one line and without the run's place on this machine."""
    text = str(error) if isinstance(error, ArtifactError) else f"{type(error).__name__}: {error}"
    for place in {str(path), str(path.resolve())}:
        text = text.replace(place, path.name)
    return " ".join(text.split())
