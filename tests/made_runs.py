"""A run written by hand: what each step leaves behind, without the steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, create, write_json
from housecall.lineage import GGUF_FILE, PROMOTED, RECIPE

PICTURE = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
FIGURES = {"loss": 1.9, "loss_interval": [1.8, 2.0], "kl_mean": 0.01, "kl_max": float("inf")}


def write_run(path: Path) -> Path:
    """A whole run with two variants, one of which the gate refused."""
    path.mkdir(parents=True)
    (path / RECIPE).write_text("name: made\n", encoding="utf-8")
    source = {"source": "/home/someone/rows.jsonl", "licence": "cc0-1.0"}
    base = _make(path / "base", "base", licence={"base": source})
    data = _make(
        path / "dataset",
        "dataset",
        [base],
        {"source_sha256": "ab", "rows": {"train": 3}, "system_prompt": "Be kind."},
        licence={"data": source},
    )
    adapter = _make(path / "adapter", "adapter", [base, data], {"steps": 2, "train_loss_last": 2.0})
    merged = _make(path / "merged", "merged", [base, adapter])
    variants = [
        _make(path / "variants" / fmt, "variant", [merged], {"format": fmt})
        for fmt in ("gguf-q4_0", "gguf-q8_0")
    ]
    verdicts = [
        {"format": "gguf-q4_0", "passed": False, "failed": ["KL 0.2 > 0.1"], "causes": ["coarse"]},
        {"format": "gguf-q8_0", "passed": True, "failed": [], "causes": []},
    ]
    judged = [{**verdict, "bytes": 4, "figures": FIGURES} for verdict in verdicts]
    gate = _make(path / "gate", "gate", [data, *variants], {"variants": judged})
    speeds = [{"format": "gguf-q8_0", "tokens_per_second": 12.5}]
    _make(path / "bench", "bench", [data, *variants], {"variants": speeds})
    write_json(
        path / PROMOTED,
        {
            "format": "gguf-q8_0",
            "sha256": variants[1].file(GGUF_FILE)["sha256"],
            "gate": gate.sha256,
            "order": "size",
        },
    )
    (path / "size-kl.png").write_bytes(b"\x89PNG")
    return path


def copy_run(run: Path, name: str) -> Path:
    """The same run under another name beside it."""
    return Path(shutil.copytree(run, run.with_name(name)))


_CONTENTS = {
    "adapter": {
        "metrics.jsonl": '{"step": 1, "loss": 3.0}\n'
        '{"step": 2, "loss": 2.0, "held_out_loss": 2.5}\n',
        "loss.svg": PICTURE,
    },
    "variant": {GGUF_FILE: "GGUF"},
    "bench": {"report.json": json.dumps({"version": 1, "models": []}), "speed.svg": PICTURE},
}


def _make(
    out: Path,
    kind: str,
    parents: list[Artifact] | None = None,
    metrics: dict[str, Any] | None = None,
    licence: dict[str, Any] | None = None,
) -> Artifact:
    with create(out, kind, config={}, parents=parents or []) as draft:
        for name, text in _CONTENTS.get(kind, {}).items():
            (draft.path / name).write_text(text, encoding="utf-8")
        draft.metrics |= metrics or {}
        draft.licences |= licence or {}
    return Artifact.load(out)
