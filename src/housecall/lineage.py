"""What stands behind a model: variant -> gate -> merged -> adapter -> data set -> base."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from housecall.artifact import MANIFEST, Artifact, hash_file
from housecall.errors import ArtifactError, NotFound
from housecall.types import ServedModel

RUNS = Path("runs")
GGUF_FILE = "model.gguf"
PROMOTED = "promoted.json"
RECIPE = "recipe.yaml"
# What a reader wants to know of each kind, besides its hash.
_FACTS = {
    "variant": ("format",),
    "imatrix": ("rows", "tokens"),
    "adapter": (
        "steps",
        "tokens",
        "held_out_loss_before",
        "held_out_loss_after",
        "trainable_parameters",
    ),
    "dataset": ("source", "source_sha256", "rows"),
    "base": ("origin", "parameters", "architecture"),
}


def list_runs(folder: Path = RUNS) -> list[Path]:
    """Runs in a folder, the newest first."""
    found = [path.parent for path in folder.glob(f"*/{RECIPE}")]
    return sorted(found, key=lambda path: (path / RECIPE).stat().st_mtime, reverse=True)


def find_run(name: str | None) -> Path:
    """A run by its name or path; None is the newest.

    Raises NotFound with what there is.
    """
    if name is None:
        runs = list_runs()
        if not runs:
            raise NotFound("there is no run here yet: make one with  housecall run demo")
        return runs[0]
    for path in (Path(name), RUNS / name):
        if (path / RECIPE).is_file():
            return path
    known = ", ".join(path.name for path in list_runs()) or "none"
    raise NotFound(f"{name}: no such run (runs here: {known})")


def served_model(name: str | None, *, ungated: bool = False) -> ServedModel:
    """The model that a run or a GGUF file stands for, its bytes verified.

    A bare GGUF file is served as not gated. Raises ArtifactError for a variant that has not
    passed the gate, unless ``ungated``, and for bytes that are not those that passed.
    """
    if name is not None and name.endswith(".gguf"):
        file = Path(name)
        if not file.is_file():
            raise NotFound(f"{name}: no such file")
        if (file.parent / MANIFEST).is_file():
            return _variant(file.parent, ungated)
        return ServedModel(file.stem, "gguf", hash_file(file), file)
    run = find_run(name)
    try:
        promoted = json.loads((run / PROMOTED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not ungated:
            raise ArtifactError(
                f"{run}: nothing has passed the gate: run  housecall gate {run.name}, "
                "or serve a variant's .gguf file with --ungated"
            ) from None
        return _variant(_smallest(run), ungated)
    return _variant(run / "variants" / promoted["format"], ungated, promoted)


def chain(artifact: Artifact) -> list[dict[str, Any]]:
    """An artifact and everything it was made from, each once, with hashes and facts.

    Paths are relative to the run, so that they say the same on another machine.
    """
    found: dict[str, dict[str, Any]] = {}
    run = _run_of(artifact)
    waiting = [artifact]
    while waiting:
        current = waiting.pop(0)
        path = Path(os.path.relpath(current.path, run)).as_posix()
        found.pop(path, None)  # named again by a descendant: it belongs further back
        found[path] = {
            "kind": current.kind,
            "path": path,
            "sha256": current.sha256,
            "created": current.manifest["created"],
            **_facts(current),
        }
        waiting += current.parents()
    return list(found.values())


def _facts(artifact: Artifact) -> dict[str, Any]:
    facts = {k: artifact.metrics[k] for k in _FACTS.get(artifact.kind, ()) if k in artifact.metrics}
    if artifact.kind in ("base", "dataset"):
        licence = artifact.manifest["licences"]["base" if artifact.kind == "base" else "data"]
        facts["licence"] = licence["licence"]
    return facts


def _run_of(artifact: Artifact) -> Path:
    parent = artifact.path.parent
    return parent.parent if artifact.kind == "variant" else parent


def _variant(folder: Path, ungated: bool, promoted: Mapping[str, Any] | None = None) -> ServedModel:
    artifact = Artifact.load(folder)
    run = _run_of(artifact)
    digest = artifact.file(GGUF_FILE)["sha256"]
    if promoted is not None and promoted["sha256"] != digest:
        raise ArtifactError(
            f"{folder / GGUF_FILE}: not the bytes that passed the gate "
            f"(expected sha256 {promoted['sha256']}, found {digest}): "
            f"run  housecall gate {run.name}"
        )
    verdict = _verdict(run, artifact)
    passed = bool(verdict and verdict["passed"])
    if not passed and not ungated:
        why = "; ".join(verdict["failed"]) if verdict else "it was not judged"
        raise ArtifactError(f"{folder}: has not passed the gate ({why}): serve it with --ungated")
    lineage = chain(artifact)
    if verdict:
        lineage.insert(1, verdict)
    return ServedModel(
        name=run.resolve().name,
        format=folder.name,
        sha256=digest,
        path=folder / GGUF_FILE,
        run=run.resolve().name,
        gated=passed,
        system_prompt=_system_prompt(run),
        lineage=tuple(lineage),
    )


def _verdict(run: Path, variant: Artifact) -> dict[str, Any] | None:
    """What the gate found of this very variant, as an entry of its lineage."""
    if not (run / "gate" / MANIFEST).is_file():
        return None
    gate = Artifact.load(run / "gate", verify=False)
    if variant.sha256 not in {parent["sha256"] for parent in gate.manifest["parents"]}:
        return None
    found = (v for v in gate.metrics["variants"] if v["format"] == variant.path.name)
    verdict = next(found, None)
    if verdict is None:
        return None
    return {"kind": "gate", "path": "gate", "sha256": gate.sha256, **verdict}


def _system_prompt(run: Path) -> str | None:
    prompt = Artifact.load(run / "dataset", verify=False).metrics["system_prompt"]
    return None if prompt is None else str(prompt)


def _smallest(run: Path) -> Path:
    files = sorted(run.glob(f"variants/*/{GGUF_FILE}"), key=lambda file: file.stat().st_size)
    if not files:
        raise ArtifactError(f"{run}: has no GGUF variant: run  housecall quantize {run.name}")
    return files[0].parent
