"""How fast QLoRA of TinyLlama's shape is on this machine, and what memory it takes.

    python benchmarks/train_tinyllama.py --data rows.json [--steps 4] [--set train.KEY=VALUE ...]

Random weights of exactly TinyLlama-1.1B's shape: speed and memory do not depend on the values. Runs
the recipe tinyllama-chatdoctor (500 rows) for a few steps and says what the whole epoch would take.
Needs the extras train and dev, and 8 GB of free disk. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tinyllama_shape import make_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a data set that data.source takes")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], help="more of the recipe")
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    options = parser.parse_args()
    folder = options.work or Path(tempfile.mkdtemp(prefix="tinyllama-"))
    try:
        report(run(folder, options))
    finally:
        if options.work is None:
            shutil.rmtree(folder)


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The summary of a run up to train."""
    base = folder / "tinyllama-shape"
    if not (base / "model.safetensors").exists():
        make_model(base)
    settings = [
        f"base.source={base}",
        f"data.source={options.data}",
        f"train.max_steps={options.steps}",
        "train.evaluations=1",
        "train.eval_tokens=256",
        "train.safety_tokens=0",
        *options.set,
    ]
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "housecall", "run", "tinyllama-chatdoctor", "--json"]
    command += ["--out", str(out), "--to", "train"]
    for setting in settings:
        command += ["--set", setting]
    summary: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return summary


def report(summary: dict[str, Any]) -> None:
    training, data = summary["training"], summary["dataset"]
    epoch = data["tokens"]["train"]
    rate = training["tokens_per_second"]
    figures = {
        "tokens_per_second": round(rate, 1),
        "peak_gb": round(training["peak_memory_bytes"] / 1e9, 2),
        "estimated_gb": round(training["memory_estimate_bytes"] / 1e9, 2),
        "rows": data["rows"]["train"],
        "tokens_of_an_epoch": epoch,
        "minutes_of_an_epoch": round(epoch / rate / 60, 1),
        "trainable_parameters": training["trainable_parameters"],
        "trainable_share": round(training["trainable_share"], 5),
        "precision": training["precision"],
    }
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<24}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
