"""Token by token generation with a transformers model. Imports torch: load it only on use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from housecall.types import Sampling

_PREFILL = 256  # prompt tokens computed between two looks at whether to go on
_PENALISED = 64  # last tokens that repeat_penalty looks at, as in llama.cpp


def generate(
    model: Any, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
) -> Iterator[int]:
    """New token ids, without end, until ``cancelled``."""
    generator = torch.Generator()
    generator.manual_seed(sampling.seed) if sampling.seed is not None else generator.seed()
    cache = DynamicCache(config=model.config)
    ids, done = list(prompt), 0
    while not cancelled():
        block = ids[done : done + _PREFILL]
        logits = _forward(model, block, cache)
        done += len(block)
        if done == len(ids):
            ids.append(choose(logits, ids[-_PENALISED:], sampling, generator))
            yield ids[-1]


@torch.inference_mode()
def _forward(model: Any, ids: Sequence[int], cache: Any) -> Tensor:
    inputs = torch.tensor([ids], device=model.device)
    output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1].float().cpu()
    return logits


@torch.inference_mode()
def mean_state(model: Any, ids: Sequence[int]) -> list[float]:
    """The mean of the last layer's states over the tokens of a text."""
    states = model.base_model(torch.tensor([ids], device=model.device)).last_hidden_state
    mean: list[float] = states[0].float().mean(0).tolist()
    return mean


@torch.inference_mode()
def choose(
    logits: Tensor, recent: Sequence[int], sampling: Sampling, generator: torch.Generator
) -> int:
    """The next token, by llama.cpp's steps in their order: temperature comes last."""
    if sampling.repeat_penalty != 1:
        seen = torch.tensor(sorted(set(recent)))
        scores, penalty = logits[seen], sampling.repeat_penalty
        logits[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)
    if sampling.temperature <= 0:
        return int(logits.argmax())
    count = sampling.top_k if 0 < sampling.top_k < len(logits) else len(logits)
    logits, tokens = logits.topk(count)
    probabilities = logits.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    keep = (before < sampling.top_p) & (probabilities >= sampling.min_p * probabilities[0])
    keep[0] = True
    weights = (logits[keep] / sampling.temperature).softmax(-1)
    return int(tokens[keep][torch.multinomial(weights, 1, generator=generator)])


class TextDecoder:
    """Turns ids into text piece by piece, holding back unfinished characters.

    A few ids of the prompt go in front, since the text of an id can depend on those before it.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-4:])
        self._start = 0
        self._shown = len(self._ids)

    def push(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._shown])
        text = self._decode(self._ids[self._start :])
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._ids) - self._shown < 4:
            return ""  # no character has more than four bytes, so it is finished by then
        self._start, self._shown = self._shown, len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
