"""Which variant is served: the best of those that passed the gate, named in ``promoted.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from housecall.artifact import MANIFEST, Artifact, write_json
from housecall.errors import ArtifactError, GateRefused
from housecall.lineage import GGUF_FILE, PROMOTED

Prefer = Literal["size", "speed"]


def promote(run: Path, prefer: Prefer) -> dict[str, Any]:
    """Name the smallest GGUF that passed or, with ``speed``, the fastest that ``bench`` has timed.

    Of equals, the one that lost less; formats that the serving engine does not run are not ranked.
    Raises GateRefused when none passed, and then nothing is promoted; ArtifactError when the bytes
    of the best are not those that were judged.
    """
    gate = Artifact.load(run / "gate", verify=False)
    judged = [v for v in gate.metrics["variants"] if v["format"].startswith("gguf-")]
    passed = [v for v in judged if v["passed"]]
    if not passed:
        withdraw(run)
        why = "; ".join(f"{v['format']}: {v['failed'][0]}{_cause(v)}" for v in judged)
        raise GateRefused(f"the gate refused every variant: {why or 'there is no GGUF among them'}")
    rates = _rates(run, gate) if prefer == "speed" else {}
    best = min(
        passed, key=lambda v: (-rates.get(v["format"], 0.0), v["bytes"], v["kl_mean"], v["format"])
    )
    variant = Artifact.load(run / "variants" / best["format"])
    if variant.sha256 not in _hashes(gate):
        raise ArtifactError(
            f"{variant.path}: made anew after the gate (found sha256 {variant.sha256}): "
            f"run  housecall gate {run.name}"
        )
    promoted = {
        "format": best["format"],
        "sha256": variant.file(GGUF_FILE)["sha256"],
        "gate": gate.sha256,
        "order": "speed" if rates else "size",
    }
    write_json(run / PROMOTED, promoted)
    return promoted


def withdraw(run: Path) -> None:
    """Nothing is promoted."""
    (run / PROMOTED).unlink(missing_ok=True)


def _rates(run: Path, gate: Artifact) -> dict[str, float]:
    """Tokens a second of each format, if ``bench`` has timed the very variants that were judged."""
    if not (run / "bench" / MANIFEST).is_file():
        return {}
    bench = Artifact.read(run / "bench")
    if _hashes(bench) != _hashes(gate):
        return {}
    return {v["format"]: v["tokens_per_second"] for v in bench.metrics["variants"]}


def _hashes(artifact: Artifact) -> set[str]:
    return {parent["sha256"] for parent in artifact.manifest["parents"]}


def _cause(verdict: Mapping[str, Any]) -> str:
    return f" ({verdict['causes'][0]})" if verdict["causes"] else ""
