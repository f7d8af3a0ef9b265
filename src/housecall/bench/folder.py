"""A folder of transformers, measured in a process that holds nothing else. Imports torch."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from housecall.bench.base import (
    PIECE_ANSWER,
    PIECE_LOADED,
    LetterQuestion,
    Prompt,
    Streamed,
    Tell,
    Together,
    Visit,
    Whole,
    Work,
)
from housecall.causal_lm import compute_dtype, load_model, pick_device
from housecall.errors import EngineError

_BATCH_TOKENS = 2048


def visit_folder(place: str, work: Work, tell: Tell) -> Visit:
    """Load, warm up, time, answer, score. Raises EngineError when the folder can't be loaded."""
    torch.set_num_threads(work.threads)
    started = time.perf_counter()
    model = _load(Path(place))
    loaded = time.perf_counter() - started
    warm = (work.speed or work.answers)[:1]
    for prompt in warm:
        _stream(model, prompt.ids, min(4, work.new_tokens))
    tell(PIECE_LOADED)
    streamed = []
    for prompt in work.speed:
        streamed.append(_stream(model, prompt.ids, work.new_tokens))
        tell(PIECE_ANSWER)
    together = []
    for size in work.batches:
        together.append(_together(model, [p.ids for p in work.together[:size]], work.new_tokens))
        tell(f"batch {size}")
    answers = _answers(model, Path(place), work) if work.answers else None
    if answers:
        tell("answers")
    letters = _letters(model, work.letters) if work.letters else None
    if letters:
        tell("questions")
    return Visit(
        engine="transformers",
        settings={"threads": work.threads, "dtype": str(model.dtype).removeprefix("torch.")},
        computes_in=str(model.dtype).removeprefix("torch."),
        load_seconds=loaded,
        # Nothing lies between the model and its caller: an answer is whole when its last token is.
        whole=[Whole(len(s.arrivals), s.arrivals[-1]) for s in streamed],
        streamed=streamed,
        together=together,
        token_bytes=_token_bytes(model),
        peak_memory_bytes=_peak_memory(),
        peak_gpu_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        cpu_seconds=sum(os.times()[:2]),
        answers=answers,
        letters=letters,
    )


def _load(folder: Path) -> Any:
    """As ``engines/hf`` does: the type that is fastest here, or that of a quantised model."""
    device = pick_device()
    if not (folder / "config.json").is_file():
        raise EngineError(f"{folder} holds no transformers model: no config.json there")
    quantised = '"quantization_config"' in (folder / "config.json").read_text("utf-8")
    dtype: Any = "auto" if quantised else compute_dtype(device)
    try:
        return load_model(folder, dtype=dtype, device_map=device.type)
    except Exception as error:  # broken files raise whatever the libraries happen to raise
        reason = " ".join(str(error).split())
        raise EngineError(f"{folder}: transformers can't load it: {reason}") from error


@torch.inference_mode()
def _greedy(model: Any, rows: Sequence[Sequence[int]], count: int) -> Iterator[list[int]]:
    """The likeliest next token of each row, ``count`` times, wherever a text would end."""
    cache = DynamicCache(config=model.config)
    ids = torch.tensor(rows, device=model.device)
    for _ in range(count):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        yield ids[:, 0].tolist()


def _stream(model: Any, ids: Sequence[int], count: int) -> Streamed:
    started = time.perf_counter()
    arrivals = [time.perf_counter() - started for _ in _greedy(model, [ids], count)]
    return Streamed(len(ids), count, arrivals)


def _together(model: Any, rows: Sequence[Sequence[int]], count: int) -> Together:
    started = time.perf_counter()
    tokens = sum(len(step) for step in _greedy(model, rows, count))
    return Together(len(rows), tokens, time.perf_counter() - started)


@torch.inference_mode()
def _answers(model: Any, folder: Path, work: Work) -> list[str]:
    """Greedy answers to read, all at once: padded in front, where no token looks."""
    from housecall.steps.base import HfTokenizer

    prompts: list[Prompt] = work.answers
    length = max(len(p.ids) for p in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    found = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=work.answer_tokens,
        do_sample=False,
        eos_token_id=work.ends,
        pad_token_id=work.ends[0],
    )
    tokenizer = HfTokenizer(folder)
    ends = set(work.ends)
    texts = []
    for row in found[:, length:].tolist():
        stop = next((i for i, token in enumerate(row) if token in ends), len(row))
        texts.append(tokenizer.decode(row[:stop]))
    return texts


@torch.inference_mode()
def _letters(model: Any, questions: Sequence[LetterQuestion]) -> list[int]:
    """Of each question the option whose letter is the likeliest next token."""
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].ids))
    chosen = [0] * len(questions)
    while order:
        size = max(1, min(len(order), _BATCH_TOKENS // len(questions[order[0]].ids)))
        batch, order = order[:size], order[size:]
        length = max(len(questions[i].ids) for i in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, : len(questions[i].ids)] = torch.tensor(questions[i].ids)
            mask[row, : len(questions[i].ids)] = 1
        last = mask.sum(dim=1) - 1
        hidden = model.model(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        )[0]
        logits = model.lm_head(hidden[torch.arange(len(batch)), last.to(model.device)]).float()
        for row, i in enumerate(batch):
            scores = logits[row, questions[i].letters]
            chosen[i] = int(scores.argmax())
    return chosen


def _token_bytes(model: Any) -> int:
    """Bytes of weights that one new token needs: all, but of a table of its own one row."""
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if table is not head:
        total -= table.numel() * table.element_size()
    return int(total)


def _peak_memory() -> int:
    """Most memory this process ever had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
