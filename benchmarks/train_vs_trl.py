"""Our training against TRL's SFTTrainer: speed, memory and final loss on the same rows.

    pip install --no-deps trl==1.16.0
    python benchmarks/train_vs_trl.py --data chatdoctor5k.json --rows 500

All get the same model, the same token ids and labels, LoRA of the same shape, the same learning
rate and schedule, one epoch, and the same number of real tokens in a step of the optimiser (eight
rows, which is TRL's default; ours takes as many tokens as eight rows have on average). Each run is
a process of its own, so peak memory is its own. ``--steps`` ends each run early: for speed alone.
Runs are interleaved; the table shows medians. Speed counts real tokens, not padding, and leaves
out loading and the first step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LEARNING_RATE, WARMUP, ROWS_A_STEP = 5e-4, 0.05, 8
TRL: dict[str, dict[str, Any]] = {
    "trl default": {},
    "trl no checkpointing": {"gradient_checkpointing": False},
    "trl grouped": {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
    },
    "trl packing": {"gradient_checkpointing": False, "packing": True},
}
OURS = {"ours": "none", "ours nf4": "nf4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--steps", type=int, help="end each run after so many steps")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--modes", default="trl default,trl grouped,ours")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the prepared rows here")
    options = parser.parse_args()
    if options.child:
        mode = train_ours if options.child in OURS else train_trl
        print(json.dumps(mode(options.child, options.folder, options.steps)))
        return
    modes = options.modes.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        prepare(options.data, options.rows, folder)
        runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
        for repeat in range(options.repeats):
            for mode in modes if repeat % 2 == 0 else reversed(modes):
                runs[mode].append(run_child(mode, folder, options.steps))
                print(f"{mode}: {runs[mode][-1]}", file=sys.stderr)
    report(runs, modes, options)


def prepare(data: Path, rows: int, folder: Path) -> None:
    """Base and data set by ``housecall prepare``."""
    if (folder / "run" / "dataset" / "manifest.json").exists():
        return
    command = [sys.executable, "-m", "housecall", "run", "demo", "--to", "prepare", "--out"]
    command += [str(folder / "run"), "--set", f"data.source={data.resolve()}"]
    subprocess.run([*command, "--set", f"data.limit={rows}"], check=True)


def run_child(mode: str, folder: Path, steps: int | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--data", "-", "--child", mode, "--folder", str(folder)]
    command += ["--steps", str(steps)] if steps else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{mode} failed")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def encoded(folder: Path) -> tuple[list[Any], list[Any]]:
    """The rows of training and validation as token ids and labels."""
    from housecall.causal_lm import encode_dialogues, read_dialogues
    from housecall.steps.base import HfTokenizer, load_template

    base, dataset = folder / "run" / "base", folder / "run" / "dataset"
    tokenizer = HfTokenizer(base)
    template = load_template(base, tokenizer)
    train, validation = (
        encode_dialogues(
            read_dialogues(dataset / f"{split}.jsonl"), template, tokenizer, tokenizer.end_of_turn
        )
        for split in ("train", "validation")
    )
    return train, validation


def train_ours(mode: str, folder: Path, steps: int | None) -> dict[str, float]:
    from housecall.causal_lm import pick_device, training_dtype
    from housecall.config import TrainConfig
    from housecall.steps.base import read_json
    from housecall.training import memory
    from housecall.training.checkpoint import CheckpointFile
    from housecall.training.processes import Processes
    from housecall.training.trainer import Trainer

    train, validation = encoded(folder)
    per_step = sum(len(row.ids) for row in train) * ROWS_A_STEP // len(train)
    longest = max(len(row.ids) for row in train)
    config = TrainConfig(
        quantization=OURS[mode],
        tokens_per_step=max(per_step, longest),
        micro_batch_tokens=max(per_step, longest),
        learning_rate=LEARNING_RATE,
        warmup=WARMUP,
        max_steps=steps,
        evaluations=1,
        checkpoint_seconds=1e9,
    )
    checkpoint = CheckpointFile(folder / "adapter", [time.time()])
    processes = Processes((), {}, folder)
    base = folder / "run" / "base"
    dtype = training_dtype(pick_device(), config.precision)
    limit = memory.needed(config, read_json(base / "config.json"), longest, dtype)
    trainer = Trainer(config, base, train, validation, checkpoint, processes, limit)
    progress = trainer.train(validation[:1])
    peak = peak_memory()
    first = progress.history[0]
    tokens = progress.tokens - first["tokens"]
    seconds = progress.seconds - first["tokens"] / first["tokens_per_s"]
    exact = judge(folder, validation, adapters=trainer)
    return figures(tokens, seconds, progress.step, exact, peak)


def train_trl(mode: str, folder: Path, steps: int | None) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from housecall.config import LINEAR_LAYERS

    train, validation = encoded(folder)
    base = folder / "run" / "base"
    rows = Dataset.from_list([{"input_ids": r.ids, "labels": r.labels} for r in train])
    settings: dict[str, Any] = dict(TRL[mode])
    total, longest = sum(len(r.ids) for r in train), max(len(r.ids) for r in train)
    if settings.get("packing"):  # one block holds the tokens of a step
        settings |= {
            "max_length": max(longest, total * ROWS_A_STEP // len(train)),
            "per_device_train_batch_size": 1,
        }
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=round(WARMUP * len(train) / ROWS_A_STEP),
        num_train_epochs=1,
        max_steps=steps or -1,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        seed=0,
        **{"max_length": longest, **settings},
    )
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.monotonic())

    seen: list[int] = []

    class Counting(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            mask = inputs.get("attention_mask")
            seen.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
            return super().training_step(model, inputs, *args, **kwargs)

    trainer = Counting(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16),
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=list(LINEAR_LAYERS)
        ),
        callbacks=[Clock()],
    )
    trainer.train()
    peak = peak_memory()
    exact = judge(folder, validation, peft=trainer.model)
    return figures(sum(seen[1:]), times[-1] - times[0], len(times), exact, peak)


def judge(folder: Path, validation: list[Any], *, adapters: Any = None, peft: Any = None) -> float:
    """Loss on held-out rows by one judge for all: our decoder in float32, unquantised weights."""
    import torch

    from housecall.config import TrainConfig
    from housecall.training.batches import micro_batches
    from housecall.training.decoder import Decoder

    config = TrainConfig(quantization="none")
    decoder = Decoder(folder / "run" / "base", config, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        for name, pair in decoder.adapters.items():
            if peft is None:
                trained = adapters.decoder.adapters[name]
                pair.down.copy_(trained.down)
                pair.up.copy_(trained.up)
            else:
                module = peft.base_model.model.get_submodule(name)
                pair.down.copy_(module.lora_A["default"].weight)
                pair.up.copy_(module.lora_B["default"].weight)
    losses = [decoder.token_losses(batch) for batch in micro_batches(validation, 2048)]
    return float(torch.cat(losses).mean())


def figures(tokens: float, seconds: float, steps: int, loss: float, peak: int) -> dict[str, float]:
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens_per_step": round(tokens / max(1, steps - 1), 1),
        "steps": steps,
        "held_out_loss": round(loss, 4),
        "peak_gb": round(peak / 1e9, 2),
    }


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(runs: dict[str, list[dict[str, float]]], modes: list[str], options: Any) -> None:
    medians = {
        mode: {key: statistics.median(run[key] for run in runs[mode]) for key in runs[mode][0]}
        for mode in modes
    }
    spread = {mode: [run["tokens_per_second"] for run in runs[mode]] for mode in modes}
    peak = matrix_rate()
    print(f"{'':<22}{'tokens/s':>10}{'(all)':>24}{'a step':>9}{'loss':>8}{'peak GB':>9}")
    for mode, found in medians.items():
        every = " ".join(f"{speed:.0f}" for speed in spread[mode])
        print(
            f"{mode:<22}{found['tokens_per_second']:>10.1f}{every:>24}"
            f"{found['tokens_per_step']:>9.0f}{found['held_out_loss']:>8.4f}{found['peak_gb']:>9.2f}"
        )
    ours = medians.get("ours") or next(medians[m] for m in modes if m in OURS)
    for mode in modes:
        if mode in TRL:
            ratio = ours["tokens_per_second"] / medians[mode]["tokens_per_second"]
            print(f"ours / {mode}: {ratio:.2f}x")
    share = ours["tokens_per_second"] * 4 * LINEAR_WEIGHTS / peak
    print(
        f"matrix products of frozen layers: {share:.0%} of this machine's {peak / 1e9:.0f} GFLOP/s "
        "(bfloat16, measured)"
    )
    print(json.dumps({"runs": runs, "medians": medians, "matrix_flops": peak, "share": share}))


LINEAR_WEIGHTS = 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536)
"""Of SmolLM2-135M: each is used once forward and once for the gradient of its input."""


def matrix_rate() -> float:
    """Floating-point operations a second of one large product in bfloat16."""
    import torch

    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        rates.append(2 * 2048**3 / (time.perf_counter() - started))
    return max(rates)


if __name__ == "__main__":
    main()
