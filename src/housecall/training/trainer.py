"""The training loop: steps, evaluations, the best adapter so far, and going on after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from housecall.causal_lm import pick_device, training_dtype
from housecall.chat_template import Encoded
from housecall.config import TrainConfig
from housecall.errors import HousecallError
from housecall.progress import bar
from housecall.training import memory
from housecall.training.batches import (
    Packed,
    Step,
    labels,
    micro_batches,
    steps_an_epoch,
    steps_of,
)
from housecall.training.checkpoint import CheckpointFile, Progress
from housecall.training.decoder import Decoder
from housecall.training.processes import Processes

Weights = dict[str, torch.Tensor]

_STEPS_BETWEEN_GIVING_BACK = 2
"""Pages given back cost time when they are taken again: docs/results.md has peaks and speeds."""


class Trainer:
    """A decoder, its optimiser and its checkpoint.

    ``rows`` and ``held_out`` are the conversations that are learned and those that judge;
    ``memory_limit`` is how many bytes the process may hold before unused ones are given back.
    """

    def __init__(
        self,
        config: TrainConfig,
        base: Path,
        rows: Sequence[Encoded],
        held_out: Sequence[Encoded],
        checkpoint: CheckpointFile,
        processes: Processes,
        memory_limit: int | None = None,
    ) -> None:
        self.config, self.processes = config, processes
        self._memory_limit = memory_limit
        self.device = pick_device()
        self.dtype = training_dtype(self.device, config.precision)
        self.decoder = Decoder(base, config, self.dtype, self.device)
        self.best: Weights = {}
        self._rows, self._held_out = rows, micro_batches(held_out, config.micro_batch_tokens)
        self._checkpoint = checkpoint
        self._parameters = list(self.decoder.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        # float16 has no room for small gradients: the loss is scaled up, and they down again.
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def steps(self) -> int:
        """How many steps there will be, if none stops early."""
        an_epoch = steps_an_epoch(self._rows, self.config.tokens_per_step, self.config.seed)
        steps = max(1, round(an_epoch * self.config.epochs))
        return min(steps, self.config.max_steps or steps)

    def train(self, sample: Sequence[Encoded]) -> Progress:
        """All steps that are not done yet; ``best`` then holds the best adapter.

        The loss on ``sample``, of the training rows, is measured before the first step. Raises
        HousecallError when the loss stops being a number.
        """
        progress = self._resume()
        if progress.loss_before is None:
            progress.train_loss_before = self.loss(
                micro_batches(sample, self.config.micro_batch_tokens), "before"
            )
            progress.loss_before = self.loss(self._held_out, "before")
        steps = self.steps
        parts = self.config.evaluations
        evaluated = {round(i * steps / parts) for i in range(1, parts + 1)}
        saved = time.monotonic()
        with bar("train", steps) as shown:
            shown.advance(progress.step, "")
            plan = steps_of(self._rows, self.config.tokens_per_step, self.config.seed)
            for rows in islice(plan, progress.step, steps):
                if progress.stopped_early:
                    break
                entry = self._step(rows, progress, steps)
                if progress.step in evaluated:
                    self._evaluate(progress, entry)
                progress.history.append(entry)
                self.processes.log(entry, progress.step)
                shown.advance(note=_note(entry))
                if self._memory_limit and progress.step % _STEPS_BETWEEN_GIVING_BACK == 0:
                    memory.give_back(self._memory_limit)
                if time.monotonic() - saved >= self.config.checkpoint_seconds:
                    self._save(progress)
                    saved = time.monotonic()
        return progress

    def loss(self, batches: Sequence[Packed], title: str) -> float:
        """Mean loss over all labels, in nats a token, in float32 from the logits on."""
        self.decoder.training = False
        sums = torch.zeros(2)
        mine = self.processes.mine(batches)
        with bar(title, len(mine)) as shown:
            for batch in mine:
                losses = self.decoder.token_losses(batch)
                sums += torch.tensor([float(losses.sum()), float(losses.numel())])
                shown.advance()
        self.processes.add_up([sums])
        return float(sums[0] / sums[1])

    def use(self, weights: Weights) -> None:
        """Put an adapter's weights in the place of those that are there."""
        with torch.no_grad():
            for name, adapter in self.decoder.adapters.items():
                adapter.down.copy_(weights[f"{name}.down"])
                adapter.up.copy_(weights[f"{name}.up"])

    def forget(self) -> None:
        """The artifact is made: the checkpoint has done its work."""
        self._checkpoint.forget()

    def _step(self, rows: Step, progress: Progress, steps: int) -> dict[str, float]:
        started = time.monotonic()
        self.decoder.training = True
        torch.manual_seed(self.config.seed + progress.step)  # dropout is the same after a resume
        rate = self.config.learning_rate * schedule(progress.step, steps, self.config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss, norm = self._gradients(rows)
        self._check("loss", loss, progress.step + 1)
        if not self._scaler.is_enabled():  # which leaves out a step whose gradients overflow
            self._check("norm of the gradients", norm, progress.step + 1)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += sum(len(row.ids) for row in rows)
        progress.seconds += time.monotonic() - started
        return {
            "step": progress.step,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens": progress.tokens,
            "tokens_per_s": progress.tokens / progress.seconds,
        }

    def _gradients(self, rows: Step) -> tuple[float, float]:
        """Gradients of the mean loss over a step's labels, clipped; the loss and their norm."""
        count = max(1, labels(rows))
        total = torch.zeros(1)
        for batch in micro_batches(self.processes.mine(rows), self.config.micro_batch_tokens):
            loss = self.decoder.loss(batch)
            self._scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
            total += loss.detach().cpu()
        for parameter in self._parameters:
            if parameter.grad is None:  # more processes than conversations in this step
                parameter.grad = torch.zeros_like(parameter)
        self.processes.add_up([total, *(p.grad for p in self._parameters if p.grad is not None)])
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.clip_norm)
        return float(total) / count, float(norm)

    def _evaluate(self, progress: Progress, entry: dict[str, float]) -> None:
        entry["held_out_loss"] = loss = self.loss(self._held_out, "validate")
        self._check("loss on held-out rows", loss, progress.step)
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            progress.evaluations_since_best = 0
            self.best = self._weights()
            return
        progress.evaluations_since_best += 1
        patience = self.config.patience
        progress.stopped_early = bool(patience) and progress.evaluations_since_best >= patience

    def _check(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise HousecallError(
                f"train: the {what} became {value} at step {step}: "
                "lower train.learning_rate, or look at the data near that step"
            )

    def _weights(self) -> Weights:
        return {
            f"{name}.{part}": weights.detach().clone()
            for name, adapter in self.decoder.adapters.items()
            for part, weights in (("down", adapter.down), ("up", adapter.up))
        }

    def _save(self, progress: Progress) -> None:
        if self.processes.first:
            state = {
                "weights": self._weights(),
                "best": self.best,
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
            }
            self._checkpoint.save(progress, state)

    def _resume(self) -> Progress:
        self.processes.wait()
        found = self._checkpoint.load(self.device)
        if found is None:
            return Progress()
        progress, state = found
        self.use(state["weights"])
        self.best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        return progress


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: linear warm-up, then a cosine down to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _note(entry: dict[str, Any]) -> str:
    return f"loss {entry['loss']:.3f}  {entry['tokens_per_s']:.0f} tokens/s"
