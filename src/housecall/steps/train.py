"""train: QLoRA - small trainable adapters over a base frozen in 4-bit NormalFloat.

Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs"; Hu et al. 2021,
"LoRA". The loss is taken on the assistant's turns only, and logits are computed only there.
A run that is interrupted goes on from its last checkpoint and ends with the same adapter.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, Draft, create
from housecall.causal_lm import encode_dialogues, pick_device, read_dialogues, take_tokens
from housecall.chat_template import Encoded
from housecall.config import TrainConfig
from housecall.errors import ArtifactError
from housecall.plots import require_matplotlib
from housecall.steps.base import HfTokenizer, load_template, read_json
from housecall.training import adapter, curves, memory, safety
from housecall.training.batches import micro_batches
from housecall.training.checkpoint import CheckpointFile, Progress
from housecall.training.processes import Processes
from housecall.training.trainer import Trainer


def run(config: TrainConfig, base: Artifact, dataset: Artifact, out: Path) -> Artifact:
    """Train an adapter for ``base`` on the training split of ``dataset``.

    Raises HousecallError when there is too little memory, or the loss stops being a number, and
    ArtifactError when the data set was prepared for another base.
    """
    if base.sha256 not in {parent.sha256 for parent in dataset.parents()}:
        raise ArtifactError(f"{dataset.path}: prepared for another base than {base.path}")
    require_matplotlib()
    settings = config.model_dump(mode="json")
    rows = {split: _encode(base, dataset, split) for split in ("train", "validation")}
    device = pick_device()
    longest = max(len(row.ids) for split in rows.values() for row in split)
    estimate = memory.check(config, read_json(base.path / "config.json"), longest, device)
    processes = Processes(config.trackers, settings, out.parent / "trackers")
    checkpoint = CheckpointFile(out, [settings, base.sha256, dataset.sha256])
    held_out = take_tokens(rows["validation"], config.eval_tokens)
    trainer = Trainer(config, base.path, rows["train"], held_out, checkpoint, processes, estimate)
    sample = take_tokens(rows["train"], config.eval_tokens)
    progress = trainer.train(sample)
    trainer.use(trainer.best)
    after = trainer.loss(micro_batches(sample, config.micro_batch_tokens), "after")
    if processes.first:
        with create(
            out, "adapter", config=settings, parents=[base, dataset], seed=config.seed
        ) as draft:
            _write(draft, trainer, progress, base)
            draft.metrics |= {"train_loss_after": after, "memory_estimate_bytes": estimate}
            draft.metrics["safety"] = _compare(config, base, dataset, draft)
        trainer.forget()
    processes.wait()
    processes.close()
    return Artifact.load(out, verify=False)


def _encode(base: Artifact, dataset: Artifact, split: str) -> list[Encoded]:
    tokenizer = HfTokenizer(base.path)
    template = load_template(base.path, tokenizer)
    dialogues = read_dialogues(dataset.path / f"{split}.jsonl")
    return encode_dialogues(dialogues, template, tokenizer, tokenizer.end_of_turn)


def _write(draft: Draft, trainer: Trainer, progress: Progress, base: Artifact) -> None:
    """The adapter, the course of its training in figures and pictures, and the summary."""
    source = base.manifest["licences"]["base"]["source"]
    adapter.save(draft.path, trainer.config, trainer.best, trainer.decoder.adapters, source)
    lines = "".join(json.dumps(entry) + "\n" for entry in progress.history)
    (draft.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    curves.draw(progress.history, progress.loss_before, draft.path)
    trainable = sum(p.numel() for p in trainer.decoder.parameters())
    draft.metrics |= {
        "trainable_parameters": trainable,
        "trainable_share": trainable / (trainable + trainer.decoder.parameters_in_base),
        "precision": str(trainer.dtype).removeprefix("torch."),
        "processes": trainer.processes.count,
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        "tokens": progress.tokens,
        "training_seconds": round(progress.seconds, 3),
        "tokens_per_second": progress.tokens / progress.seconds,
        "train_loss_first": progress.history[0]["loss"],
        "train_loss_last": _mean([entry["loss"] for entry in progress.history[-5:]]),
        "train_loss_before": progress.train_loss_before,
        "held_out_loss_before": progress.loss_before,
        "held_out_loss_after": progress.best_loss,
        "peak_memory_bytes": _peak_memory(),
    }


def _compare(
    config: TrainConfig, base: Artifact, dataset: Artifact, draft: Draft
) -> dict[str, Any] | None:
    """What fine-tuning did to answers that a patient's safety hangs on."""
    if not config.safety_tokens:
        return None
    system = dataset.metrics["system_prompt"]
    report = safety.compare(base.path, draft.path, system, config.safety_tokens)
    lines = "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in report.pop("answers"))
    (draft.path / "safety.jsonl").write_text(lines, encoding="utf-8")
    return report


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _peak_memory() -> int:
    """Peak resident bytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
