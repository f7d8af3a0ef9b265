"""train: QLoRA - small trainable adapters over a base frozen in 4-bit NormalFloat.

Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs"; Hu et al. 2021,
"LoRA". The loss is taken on the assistant's turns only, and logits are computed only there.
A run that is interrupted goes on from its last checkpoint and ends with the same adapter.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import resource
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from housecall.artifact import Artifact, create
from housecall.causal_lm import (
    Batch,
    compute_dtype,
    encode_dialogues,
    label_logits,
    load_model,
    make_batches,
    pick_device,
    quiet_libraries,
    read_dialogues,
    take_tokens,
    token_losses,
)
from housecall.chat_template import Encoded
from housecall.config import TrainConfig
from housecall.errors import HousecallError
from housecall.progress import bar
from housecall.steps.base import HfTokenizer, load_template


@dataclass(slots=True)
class Progress:
    """How far training is; saved in every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss_before: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def run(config: TrainConfig, base: Artifact, dataset: Artifact, out: Path) -> Artifact:
    """Train an adapter for ``base`` on the training split of ``dataset``.

    Raises HousecallError when the loss stops being a number.
    """
    tokenizer = HfTokenizer(base.path)
    template = load_template(base.path, tokenizer)

    def rows(split: str) -> list[Encoded]:
        dialogues = read_dialogues(dataset.path / f"{split}.jsonl")
        return encode_dialogues(dialogues, template, tokenizer, tokenizer.end_of_turn)

    held_out = make_batches(take_tokens(rows("validation"), config.eval_tokens), 2048)
    with create(
        out,
        "adapter",
        config=config.model_dump(mode="json"),
        parents=[base, dataset],
        seed=config.seed,
    ) as draft:
        trainer = _Trainer(config, base, out, [base.sha256, dataset.sha256])
        progress = trainer.train(rows("train"), held_out)
        trainer.model.save_pretrained(draft.path)
        _make_portable(draft.path, base)
        lines = "".join(json.dumps(entry) + "\n" for entry in progress.history)
        (draft.path / "metrics.jsonl").write_text(lines, encoding="utf-8")
        trainable, total = trainer.parameter_counts()
        draft.metrics |= {
            "trainable_parameters": trainable,
            "trainable_share": trainable / total,
            "steps": progress.step,
            "tokens": progress.tokens,
            "tokens_per_second": progress.tokens / progress.seconds,
            "train_loss_first": progress.history[0]["loss"],
            "train_loss_last": _mean([h["loss"] for h in progress.history[-5:]]),
            "held_out_loss_before": progress.loss_before,
            "held_out_loss_after": trainer.loss(held_out, "loss after"),
            "peak_memory_bytes": _peak_memory(),
        }
    trainer.forget()
    return Artifact.load(out, verify=False)


class _Trainer:
    """The model under training, its optimiser and its checkpoint."""

    def __init__(self, config: TrainConfig, base: Artifact, out: Path, inputs: list[str]) -> None:
        self.config = config
        self.device = pick_device()
        self.dtype = compute_dtype(self.device)
        torch.manual_seed(config.seed)
        self.model = _adapted(config, base.path, self.dtype, self.device)
        self.weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        identity = json.dumps([config.model_dump(mode="json"), inputs], sort_keys=True)
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._checkpoint = out.parent / f".{out.name}.{name}.checkpoint"

    def train(self, rows: list[Encoded], held_out: list[Batch]) -> Progress:
        """All steps that are not done yet."""
        progress = self._resume()
        if progress.loss_before is None:
            progress.loss_before = self.loss(held_out, "loss before")
        steps = self._steps(rows)
        last_saved = time.monotonic()
        with bar("train", steps) as shown:
            shown.advance(progress.step, "")
            for batch in self._batches(rows, progress.step, steps):
                started = time.monotonic()
                loss = self._step(batch, progress.step, steps)
                progress.step += 1
                progress.tokens += batch.tokens
                progress.seconds += time.monotonic() - started
                rate = progress.tokens / progress.seconds
                progress.history.append({"step": progress.step, "loss": loss, "tokens_per_s": rate})
                shown.advance(note=f"loss {loss:.3f}  {rate:.0f} tokens/s")
                if time.monotonic() - last_saved >= self.config.checkpoint_seconds:
                    self._save(progress)
                    last_saved = time.monotonic()
        return progress

    @torch.no_grad()
    def loss(self, batches: list[Batch], title: str) -> float:
        """Mean loss over all labelled tokens, in nats."""
        self.model.eval()
        total, count = 0.0, 0
        with bar(title, len(batches)) as shown:
            for batch in batches:
                losses = self._losses(batch)
                total, count = total + float(losses.sum()), count + losses.numel()
                shown.advance()
        return total / count

    def parameter_counts(self) -> tuple[int, int]:
        """Trainable parameters, and all (4-bit weights counted as the weights they stand for)."""
        trainable, total = self.model.get_nb_trainable_parameters()
        return int(trainable), int(total)

    def forget(self) -> None:
        """Remove the checkpoint: the artifact is made."""
        self._checkpoint.unlink(missing_ok=True)

    def _step(self, batch: Batch, step: int, steps: int) -> float:
        self.model.train()
        torch.manual_seed(self.config.seed + step)  # dropout is the same after a resume
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(step, steps)
        loss = self._losses(batch).mean()
        value = loss.item()
        if not math.isfinite(value):
            raise HousecallError(
                f"train: the loss became {value} at step {step + 1}: "
                "lower train.learning_rate, or look at the data near that step"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.weights.values(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _losses(self, batch: Batch) -> torch.Tensor:
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits, targets = label_logits(self.model.base_model.model, batch)
        return token_losses(logits, targets)

    def _schedule(self, step: int, steps: int) -> float:
        """Linear warm-up, then a cosine down to zero."""
        warmup = max(1, round(self.config.warmup * steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def _steps(self, rows: list[Encoded]) -> int:
        an_epoch = len(make_batches(rows, self.config.tokens_per_step))
        steps = max(1, round(an_epoch * self.config.epochs))
        return min(steps, self.config.max_steps or steps)

    def _batches(self, rows: list[Encoded], start: int, stop: int) -> Iterator[Batch]:
        """Batches ``start`` to ``stop`` of an endless row of epochs, shuffled by the seed."""
        step = 0
        shuffle = random.Random(self.config.seed)
        while True:
            for batch in make_batches(rows, self.config.tokens_per_step, shuffle):
                if step == stop:
                    return
                if step >= start:
                    yield batch
                step += 1

    def _save(self, progress: Progress) -> None:
        state = {
            "weights": {n: p.detach() for n, p in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "progress": {name: getattr(progress, name) for name in Progress.__slots__},
        }
        temporary = self._checkpoint.with_suffix(".partial")
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._checkpoint)

    def _resume(self) -> Progress:
        if not self._checkpoint.exists():
            return Progress()
        state = torch.load(self._checkpoint, weights_only=True, map_location=self.device)
        for name, saved in state["weights"].items():
            self.weights[name].data.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])


def _adapted(config: TrainConfig, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The frozen base with fresh LoRA adapters on it."""
    quiet_libraries()
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = load_model(
        folder,
        dtype=dtype,
        device_map={"": device},
        **({"quantization_config": quantization} if config.quantization == "nf4" else {}),
    )
    for module in model.modules():
        # In a forward pass without gradients, bitsandbytes repacks 4-bit weights for its CPU
        # kernel, through which no gradient flows afterwards: training would silently go wrong.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.layers),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return get_peft_model(model, lora)


def _make_portable(folder: Path, base: Artifact) -> None:
    """PEFT writes the base's path of this machine, and a model card template: neither belongs."""
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base.manifest["licences"]["base"]["source"]
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _peak_memory() -> int:
    """Peak resident bytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
