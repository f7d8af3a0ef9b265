"""What a variant lost against FP16, on the same held-out tokens and the same questions.

One model is in memory at a time: FP16's log-probabilities wait on the disk, exact, in float32.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from housecall.causal_lm import Batch, label_logits, load_config, load_model, make_batches
from housecall.chat_template import IGNORE, Encoded
from housecall.checks.engine import TOP, next_token, running
from housecall.checks.questions import LaidOut, choices
from housecall.checks.statistics import Interval, bootstrap_mean, wilson
from housecall.checks.streamed import read_folder, read_gguf, streamed_model
from housecall.lineage import GGUF_FILE
from housecall.steps.base import read_json
from housecall.weights import Weights

_BATCH = 2048  # tokens; each batch reads all weights once
_CHUNK = 256  # places whose log-probabilities over the vocabulary are in memory at once


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What all variants are measured on; at about ``engine_tokens`` places the engine is asked."""

    rows: Sequence[Encoded]
    questions: Sequence[LaidOut]
    engine_tokens: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A labelled place: the number of its row (rows sorted by length), and where in the row."""

    row: int
    at: int


@dataclass(frozen=True, slots=True)
class _Computed:
    """What a model says of every held-out token, of the sample's places and of the questions."""

    losses: torch.Tensor
    divergences: torch.Tensor
    agreements: torch.Tensor
    sampled: torch.Tensor
    right: Sequence[bool]


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine itself on ``tokens`` places, by its ``top`` most likely tokens.

    What is not among them counts as one token more, so a divergence is at least what is said.
    ``kl_from_weights`` compares it with its own weights in float32.
    """

    tokens: int
    top: int
    kl_mean: float
    kl_from_weights: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One variant against FP16; loss and KL divergence in nats a token, on ``tokens`` tokens.

    Intervals are of 95 %. ``engine`` is None for what the serving engine does not run.
    """

    tokens: int
    loss: float
    loss_interval: Interval
    perplexity: float
    perplexity_interval: Interval
    kl_mean: float
    kl_p99: float
    kl_max: float
    agreement: float
    questions: int
    accuracy: float
    accuracy_interval: Interval
    engine: EngineFigures | None


class Measure:
    """Compares variants with the FP16 model in ``fp16``; ``scratch`` holds what is big."""

    def __init__(self, fp16: Path, held_out: HeldOut, scratch: Path) -> None:
        self._fp16 = fp16
        self._scratch = scratch
        self._questions = sorted(held_out.questions, key=lambda q: len(q.ids))
        self._rows = sorted(held_out.rows, key=lambda row: len(row.ids))
        self._batches = make_batches(self._rows, _BATCH)
        self._places = _places(self._rows)
        self._sample = _spread(self._places, held_out.engine_tokens)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with _opened(fp16, fp16) as model:
            for number, batch in enumerate(self._batches):
                torch.save(_log_probabilities(model, batch)[0], self._file(number))
            self._reference = self._computed(model)

    def close(self) -> None:
        """Remove the scratch files."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def figures(self, variant: Path) -> Figures:
        """Measure one variant."""
        gguf = variant / GGUF_FILE
        is_gguf = variant.name.startswith("gguf-")
        if variant == self._fp16 or (is_gguf and self._same_weights(gguf)):
            found = self._reference
        else:
            with _opened(variant, self._fp16) as model:
                found = self._computed(model)
        engine = asyncio.run(self._ask_engine(gguf, found.sampled)) if is_gguf else None
        rows = torch.tensor([place.row for place in self._places])
        return _summary(rows, found, engine)

    def _same_weights(self, gguf: Path) -> bool:
        """Whether a file holds FP16's weights bit for bit: what was computed with those holds."""
        config = load_config(self._fp16)
        read = read_gguf(gguf, config)
        weights = Weights(self._fp16)
        return all(torch.equal(read(name), weights[name].float()) for name in weights.names)

    def _computed(self, model: Any) -> _Computed:
        losses, divergences, agreements, sampled = [], [], [], []
        for number, (batch, chosen) in enumerate(self._with_sample()):
            reference = torch.load(self._file(number), mmap=True)
            logs, targets = _log_probabilities(model, batch)
            losses.append(-logs.gather(1, targets[:, None])[:, 0])
            for p, q in zip(_chunks(reference), _chunks(logs), strict=True):
                divergences.append((p.exp() * (p - q)).sum(dim=1))
                agreements.append(p.argmax(dim=1) == q.argmax(dim=1))
            sampled.append(logs[chosen])
        return _Computed(
            losses=torch.cat(losses).double(),
            divergences=torch.cat(divergences),
            agreements=torch.cat(agreements),
            sampled=torch.cat(sampled),
            right=self._answered(model),
        )

    def _file(self, number: int) -> Path:
        return self._scratch / f"{number}.pt"

    def _with_sample(self) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Batches, and which of the labelled places of each are in the sample."""
        sample = set(self._sample)
        chosen = torch.tensor([place in sample for place in self._places])
        counts = [int((batch.labels[:, 1:] != IGNORE).sum()) for batch in self._batches]
        yield from zip(self._batches, torch.split(chosen, counts), strict=True)

    def _answered(self, model: Any) -> list[bool]:
        right = []
        for batch in _by_tokens(self._questions):
            chosen = choices(model, batch)
            right += [c == q.answer for c, q in zip(chosen, batch, strict=True)]
        return right

    async def _ask_engine(self, file: Path, weights: torch.Tensor) -> EngineFigures:
        """The engine's own next tokens at the places of the sample, forced one by one."""
        prompts = [self._rows[place.row].ids[: place.at] for place in self._sample]
        from_fp16, from_weights, same = [], [], 0
        async with running(file, n_ctx=max(map(len, prompts)) + 8) as engine:
            letter = (await engine.tokenize("a", special=False))[-1]
            for number, prompt in enumerate(prompts):
                found = await next_token(engine, prompt, letter)
                ids, logs = torch.tensor(list(found)), torch.tensor(list(found.values()))
                reference = self._reference.sampled[number]
                from_fp16.append(_divergence_of_top(reference, ids, logs))
                from_weights.append(_divergence_of_top(weights[number], ids, logs))
                same += int(ids[logs.argmax()] == reference.argmax())
        return EngineFigures(
            tokens=len(prompts),
            top=TOP,
            kl_mean=sum(from_fp16) / len(prompts),
            kl_from_weights=sum(from_weights) / len(prompts),
            agreement=same / len(prompts),
        )


def _places(rows: Sequence[Encoded]) -> list[_Place]:
    """All labelled places, in the order in which ``label_logits`` gives them."""
    return [
        _Place(number, at)
        for number, row in enumerate(rows)
        for at, label in enumerate(row.labels)
        if label != IGNORE
    ]


def _spread(places: Sequence[_Place], count: int, rows: int = 4) -> list[_Place]:
    """About ``count`` evenly spread places of a few rows: each new row costs reading its prompt."""
    numbers = sorted({place.row for place in places})
    step = max(1, len(numbers) // rows)
    chosen = [p for p in places if p.row in numbers[::step][:rows]]
    return chosen[:: max(1, len(chosen) // count)]


def _summary(rows: torch.Tensor, found: _Computed, engine: EngineFigures | None) -> Figures:
    groups = sorted(set(rows.tolist()))
    interval = bootstrap_mean(
        [float(found.losses[rows == g].sum()) for g in groups],
        [int((rows == g).sum()) for g in groups],
    )
    loss, kl, right = found.losses.mean(), found.divergences, found.right
    low, high = torch.tensor(interval, dtype=torch.double).exp().tolist()
    return Figures(
        tokens=len(kl),
        loss=float(loss),
        loss_interval=interval,
        perplexity=float(loss.exp()),
        perplexity_interval=(low, high),
        kl_mean=float(kl.mean()),
        kl_p99=float(kl.quantile(0.99)),
        kl_max=float(kl.max()),
        agreement=float(found.agreements.float().mean()),
        questions=len(right),
        accuracy=sum(right) / len(right),
        accuracy_interval=wilson(sum(right), len(right)),
        engine=engine,
    )


def _divergence_of_top(p: torch.Tensor, ids: torch.Tensor, q: torch.Tensor) -> float:
    """KL divergence in nats of two log-probabilities, all tokens outside ``ids`` counted as one.

    Putting tokens together can only lower a divergence (data processing inequality).
    """
    p, q = p[ids].double(), q.double()
    rest = [torch.log((1 - logs.exp().sum()).clamp_min(1e-12)) for logs in (p, q)]
    p, q = torch.cat([p, rest[0][None]]), torch.cat([q, rest[1][None]])
    return float((p.exp() * (p - q)).sum())


def _log_probabilities(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (n, vocabulary) and targets (n,) at the places that have a label."""
    with torch.no_grad():
        logits, targets = label_logits(model, batch)
        return logits.float().log_softmax(dim=-1), targets


def _chunks(logs: torch.Tensor) -> Sequence[torch.Tensor]:
    return torch.split(logs, _CHUNK)


def _by_tokens(questions: Sequence[LaidOut]) -> Iterator[list[LaidOut]]:
    """Batches of questions sorted by length, each at most ``_BATCH`` tokens with its padding."""
    batch: list[LaidOut] = []
    for question in questions:
        if batch and len(question.ids) * (len(batch) + 1) > _BATCH:
            yield batch
            batch = []
        batch.append(question)
    yield batch


@contextmanager
def _opened(variant: Path, fp16: Path) -> Iterator[Any]:
    """A variant as a torch model; GGUF files are dequantised into FP16's architecture."""
    if variant.name.startswith("gguf-"):
        config = load_config(fp16)
        yield streamed_model(fp16, read_gguf(variant / GGUF_FILE, config))
    elif "quantization_config" in read_json(variant / "config.json"):
        yield load_model(variant)
    else:
        yield streamed_model(variant, read_folder(variant))
