"""What stands behind a model: variant -> gate -> merged -> adapter -> data set -> base."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from housecall.artifact import MANIFEST, Artifact, hash_file
from housecall.errors import ArtifactError, NotFound
from housecall.progress import console
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
        "train_loss_first",
        "train_loss_last",
        "steps",
        "tokens",
        "held_out_loss_before",
        "held_out_loss_after",
        "trainable_parameters",
    ),
    "dataset": ("source", "source_sha256", "rows"),
    "base": ("origin", "parameters", "architecture"),
}
_UNCLEAR = ("unclear", "unknown", "not stated", "none", "see ", "scraped", "other")


def list_runs(folder: Path = RUNS) -> list[Path]:
    """Runs in a folder, the newest first; a hidden one is being removed."""
    found = [path.parent for path in folder.glob(f"[!.]*/{RECIPE}")]
    return sorted(found, key=lambda path: (path / RECIPE).stat().st_mtime, reverse=True)


def find_run(name: str | None, *, needs: Sequence[str] = ()) -> Path:
    """A run by its name or path; None is the newest.

    A run that failed is no use to who needs more of it: with ``needs`` (patterns of files) the
    newest that has one of them is taken, and a line says so. Raises NotFound with what there is.
    """
    if name is None:
        return _newest(needs)
    for path in (Path(name), RUNS / name):
        if (path / RECIPE).is_file():
            return path
    known = ", ".join(path.name for path in list_runs()) or "none"
    raise NotFound(f"{name}: no such run (runs here: {known})")


def _newest(needs: Sequence[str]) -> Path:
    runs = list_runs()
    if not runs:
        raise NotFound("there is no run here yet: make one with  housecall run demo")
    usable = (run for run in runs if not needs or any(any(run.glob(p)) for p in needs))
    found = next(usable, runs[0])  # where none is, the newest is told what it lacks
    if found == runs[0]:
        return found
    console().print(f"{runs[0]} is newer but did not get so far: taking {found}")
    return found


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
    run = find_run(name, needs=(PROMOTED, *([f"variants/*/{GGUF_FILE}"] if ungated else [])))
    if not (run / PROMOTED).exists():
        if not ungated:
            raise ArtifactError(
                f"{run}: nothing has passed the gate: run  housecall gate {run.name}, "
                "or serve a variant's .gguf file with --ungated"
            )
        return _variant(_smallest(run), ungated)
    promoted = read_promoted(run)
    return _variant(run / "variants" / promoted["format"], ungated, promoted)


def read_promoted(run: Path) -> dict[str, Any]:
    """``promoted.json`` of a run: ``format``, ``sha256``, ``gate``. Raises ArtifactError."""
    file = run / PROMOTED
    try:
        promoted = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(promoted[key], str) for key in ("format", "sha256", "gate")):
            raise TypeError("its values are not texts")
        return dict(promoted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{file}: can't be read ({error}): run  housecall gate {run.name}"
        ) from error


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
            "housecall": current.manifest["housecall"],
            "versions": current.manifest["versions"],
            **_facts(current),
        }
        waiting += current.parents()
    return list(found.values())


def _facts(artifact: Artifact) -> dict[str, Any]:
    facts = {k: artifact.metrics[k] for k in _FACTS.get(artifact.kind, ()) if k in artifact.metrics}
    if artifact.kind == "adapter":
        facts |= {"config": artifact.manifest["config"], "seed": artifact.manifest["seed"]}
    if artifact.kind in ("base", "dataset"):
        # What the licence is of: its source as the recipe gave it, never a path of this machine.
        licence = artifact.manifest["licences"]["base" if artifact.kind == "base" else "data"]
        facts |= {"source": source_label(licence["source"]), "licence": licence["licence"]}
    return facts


def source_label(source: str) -> str:
    """A source as lineage names it: of a path of this machine only the last part."""
    known = source.startswith(("builtin:", "hub:", "wheel:"))
    return source if known else Path(source).name


def is_unclear(licence: str) -> bool:
    """Whether a licence, as a recipe states it, leaves open what may be done."""
    return licence.strip().lower().startswith(_UNCLEAR) or not licence.strip()


def gguf_fields(merged: Artifact) -> dict[str, str | int | float]:
    """What is known of a merged model when its GGUF files are written, as their metadata keys.

    ``general.*`` are llama.cpp's own names, ``housecall.*`` are ours; any GGUF tool shows both.
    """
    found = {entry["kind"]: entry for entry in chain(merged)}
    base, data, adapter = found["base"], found["dataset"], found["adapter"]
    keys: dict[str, Any] = {
        "general.license": str(base["licence"]),
        "general.base_model.count": 1,
        "general.base_model.0.name": base["source"],
        "general.dataset.count": 1,
        "general.dataset.0.name": data["source"],
        "housecall.version": merged.manifest["housecall"]["version"],
        "housecall.commit": merged.manifest["housecall"]["commit"],
        "housecall.merged": merged.sha256,
        "housecall.base.source": base["source"],
        "housecall.base.sha256": base["sha256"],
        "housecall.base.licence": str(base["licence"]),
        "housecall.dataset.source": data["source"],
        "housecall.dataset.source_sha256": data["source_sha256"],
        "housecall.dataset.sha256": data["sha256"],
        "housecall.dataset.licence": str(data["licence"]),
        "housecall.dataset.rows": json.dumps(data["rows"]),
        "housecall.adapter.sha256": adapter["sha256"],
        "housecall.adapter.config": json.dumps(adapter["config"], sort_keys=True),
        "housecall.adapter.seed": adapter["seed"],
        "housecall.adapter.steps": adapter["steps"],
        "housecall.adapter.held_out_loss": adapter["held_out_loss_after"],
    }
    return {key: value for key, value in keys.items() if value is not None}


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
    if promoted is not None and promoted["gate"] != _hash_of_gate(run):
        raise ArtifactError(
            f"{run / 'gate'}: not the gate that promoted {folder.name} (expected sha256 "
            f"{promoted['gate']}, found {_hash_of_gate(run)}): run  housecall gate {run.name}"
        )
    verdict = _verdict(run, artifact)
    passed = bool(verdict and verdict["passed"])
    if not passed and not ungated:
        why = "; ".join(verdict["failed"]) if verdict else f"no gate has judged sha256 {digest}"
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
    gate = Artifact.read(run / "gate")
    if variant.sha256 not in {parent["sha256"] for parent in gate.manifest["parents"]}:
        return None
    found = (v for v in gate.metrics["variants"] if v["format"] == variant.path.name)
    verdict = next(found, None)
    if verdict is None:
        return None
    return {
        "kind": "gate",
        "path": "gate",
        "sha256": gate.sha256,
        "created": gate.manifest["created"],
        "housecall": gate.manifest["housecall"],
        "versions": gate.manifest["versions"],
        **verdict,
    }


def _hash_of_gate(run: Path) -> str:
    """SHA-256 of the gate's manifest, or what is there in its place."""
    return Artifact.read(run / "gate").sha256 if (run / "gate" / MANIFEST).is_file() else "none"


def _system_prompt(run: Path) -> str | None:
    prompt = Artifact.read(run / "dataset").metrics["system_prompt"]
    return None if prompt is None else str(prompt)


def _smallest(run: Path) -> Path:
    files = sorted(run.glob(f"variants/*/{GGUF_FILE}"), key=lambda file: file.stat().st_size)
    if not files:
        raise ArtifactError(f"{run}: has no GGUF variant: run  housecall quantize {run.name}")
    return files[0].parent
