"""Peak memory of merge, calibration and each format, against what DESIGN.md's rule allows.

The rule: 3 times the largest tensor in float32 plus 600 MB. Each step runs in a process of its
own; what counts is the proportional set size (PSS) of all its processes, sampled while it runs.

    python benchmarks/quantize_memory.py MODEL_FOLDER [--work FOLDER]

MODEL_FOLDER is a Hugging Face folder, such as the one that tinyllama_shape.py makes; the adapter
is random. Prints a table, and JSON as its last line. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ALLOWED_BYTES = 600_000_000
INTERVAL = 0.02  # seconds between two samples
FORMATS = ("int8", "int4", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-q4_0")
TOKENS = 2048  # of calibration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--formats", default=",".join(FORMATS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantize-memory-", dir=arguments.work) as folder:
        report(arguments.model, measure(arguments, Path(folder)))


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    steps = ["adapter", "merge", "imatrix", *arguments.formats.split(",")]
    rows = []
    for step in steps:
        command = [sys.executable, __file__, "--child", step, str(arguments.model), str(folder)]
        began = time.perf_counter()
        process = subprocess.Popen(command)
        peak = 0
        while process.poll() is None:
            peak = max(peak, used(process.pid))
            time.sleep(INTERVAL)
        if process.returncode:
            sys.exit(f"{step} failed")
        seconds = round(time.perf_counter() - began, 1)
        rows.append({"step": step, "peak_bytes": peak, "seconds": seconds})
    return rows[1:]


def used(pid: int) -> int:
    """PSS of a process and all below it, in bytes."""
    try:
        top = psutil.Process(pid)
        return sum(p.memory_full_info().pss for p in [top, *top.children(recursive=True)])
    except psutil.Error:  # it has just ended
        return 0


def report(model: Path, rows: list[dict[str, Any]]) -> None:
    from housecall.weights import Weights

    weights = Weights(model)
    largest = 4 * max(math.prod(weights.shape(name)) for name in weights)
    allowed = 3 * largest + ALLOWED_BYTES
    print(f"largest tensor {largest / 1e6:.0f} MB in float32; allowed {allowed / 1e6:.0f} MB")
    for row in rows:
        verdict = "" if row["peak_bytes"] <= allowed else "  MORE THAN ALLOWED"
        peak = f"{row['peak_bytes'] / 1e6:>8.0f} MB"
        print(f"{row['step']:<14}{peak}{row['seconds']:>8.1f} s{verdict}")
    print(json.dumps({"allowed_bytes": allowed, "steps": rows}))


def child(step: str, model: Path, folder: Path) -> None:
    """One step, as the pipeline does it."""
    merged = folder / "merged"
    if step == "adapter":
        make_adapter(model, folder / "adapter")
    elif step == "merge":
        from housecall.steps.merge import merge_weights

        merged.mkdir()
        merge_weights(model, folder / "adapter", merged)
        for file in model.iterdir():
            if file.suffix != ".safetensors":
                (merged / file.name).write_bytes(file.read_bytes())
    elif step == "imatrix":
        make_matrix(merged, folder / "imatrix")
    elif step.startswith("gguf-"):
        from quantize_speed import make
        from safetensors.numpy import load_file

        matrix = load_file(folder / "imatrix" / "imatrix.safetensors")
        make(folder, step, folder / "model.gguf", matrix)
        (folder / "model.gguf").unlink()
    else:
        from housecall.bitsandbytes_folder import write_folder

        (folder / step).mkdir()
        write_folder(step, merged, folder / step)


def make_adapter(model: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from housecall.weights import Weights

    weights, lora = Weights(model), {}
    for name in weights.names:
        if ".layers." in name and len(weights.shape(name)) == 2:
            key = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weights.shape(name)
            lora[f"{key}.lora_A.weight"] = torch.randn(16, columns) / 100
            lora[f"{key}.lora_B.weight"] = torch.randn(rows, 16) / 100
    folder.mkdir()
    save_file(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"lora_alpha": 32, "r": 16}', encoding="utf-8")


def make_matrix(merged: Path, folder: Path) -> None:
    import random

    from safetensors.numpy import save_file

    from housecall.chat_template import Encoded
    from housecall.importance import measure_importance

    rows = [Encoded(random.Random(i).choices(range(300), k=256), []) for i in range(TOKENS // 256)]
    for row in rows:
        row.labels.extend([0] * 256)
    folder.mkdir()
    save_file(measure_importance(merged, rows), folder / "imatrix.safetensors")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
