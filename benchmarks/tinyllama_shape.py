"""The recipe tinyllama-chatdoctor on a random model of exactly TinyLlama's shape.

No hub is needed: the weights are random, so sizes and the mechanics are real and quality means
nothing. Every format is made by the code that makes the real ones, from a few training steps.

    python benchmarks/tinyllama_shape.py --data rows.json [--work FOLDER]

Needs the extras train and dev (mistral-common carries the tokenizer) and 18 GB of free disk.
Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

NEEDED_BYTES = 18_000_000_000
# What the original report measured, in GB; GGUF was Q8_0.
REPORTED = {"fp16": 2.2, "int8": 1.24, "int4": 0.81, "gguf-q8_0": 1.17}
STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a data set that data.source takes")
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    arguments = parser.parse_args()
    folder = arguments.work or Path(tempfile.mkdtemp(prefix="tinyllama-"))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        sys.exit(f"{folder}: {free / 1e9:.1f} GB free, {NEEDED_BYTES / 1e9:.0f} are needed")
    try:
        report(run(folder, arguments.data))
    finally:
        if arguments.work is None:
            shutil.rmtree(folder)


def run(folder: Path, data: str) -> dict[str, Any]:
    """The whole pipeline but bench; returns its summary."""
    base = folder / "tinyllama-shape"
    if not (base / "model.safetensors").exists():
        make_model(base)
    settings = [
        f"base.source={base}",
        f"data.source={data}",
        f"train.max_steps={STEPS}",
        "train.tokens_per_step=512",
        "train.eval_tokens=256",
        "quantize.calibration_tokens=512",
        "gate.tokens=256",
    ]
    command = [sys.executable, "-m", "housecall", "run", "tinyllama-chatdoctor", "--json"]
    command += ["--out", str(folder / "run"), "--to", "gate"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):  # random weights may well be refused by the gate
        sys.exit(done.returncode)
    command = [sys.executable, "-m", "housecall", "quantize", str(folder / "run"), "--json"]
    summary: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return summary


def make_model(folder: Path) -> None:
    """1.1 billion random float16 weights in TinyLlama's layout, and a Llama 2 tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from tiny_models import write_sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float16",
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in LlamaForCausalLM(config).named_parameters()}
    torch.manual_seed(0)
    weights = {
        name: torch.ones(shape, dtype=torch.float16)
        if "norm" in name
        else (0.02 * torch.randn(shape)).half()
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    write_sentencepiece(folder)
    count = sum(shape.numel() for shape in shapes.values())
    print(f"{count:,} random weights in {time.monotonic() - started:.0f} s", file=sys.stderr)


def report(summary: dict[str, Any]) -> None:
    training = summary["training"]
    print(f"{'variant':<14}{'GB':>8}{'report GB':>12}{'smaller than fp16':>20}")
    for row in summary["variants"]:
        reported = REPORTED.get(row["format"])
        print(
            f"{row['format']:<14}{row['bytes'] / 1e9:>8.3f}"
            f"{reported if reported else '-':>12}{row['smaller']:>20.0%}"
        )
    print(
        f"trainable: {training['trainable_parameters']:,} of the parameters "
        f"({training['trainable_share']:.2%}; the report: 0.4 %)"
    )
    print(
        f"QLoRA on this machine: {training['tokens_per_second']:.1f} tokens/s over {STEPS} steps, "
        f"peak {training['peak_memory_bytes'] / 1e9:.1f} GB"
    )
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "variants": {r["format"]: r["bytes"] for r in summary["variants"]},
                "trainable_parameters": training["trainable_parameters"],
                "trainable_share": training["trainable_share"],
                "train_tokens_per_second": training["tokens_per_second"],
                "peak_memory_bytes": children,
            }
        )
    )


if __name__ == "__main__":
    main()
