"""Greedy answers of the FP16 weights in float32 against those of ``gguf-f16`` in the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a greedy answer of the engine leaves that of FP16.

    ``gap`` is by how many logits FP16 prefers its own token to the engine's.
    """

    prompt: int
    position: int
    token: int
    engine_token: int
    gap: float


@torch.no_grad()
def first_divergences(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Divergence]:
    """The first place in each answer where ``model`` would have chosen another token.

    Up to it the two greedy answers are the same text, so the model is asked once for the whole
    of the engine's answer instead of token by token.
    """
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = [*prompt, *answer]
        ids[i, : len(row)] = torch.tensor(row)
    # Padding is on the right, where no token that counts can see it.
    hidden = model.model(input_ids=ids, use_cache=False)[0]
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        wanted[i, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
    logits = model.lm_head(hidden[wanted]).float()
    return _divergences(logits.split([len(answer) for answer in answers]), answers)


def _divergences(
    rows: Sequence[torch.Tensor], answers: Sequence[Sequence[int]]
) -> list[Divergence]:
    found = []
    for number, (logits, answer) in enumerate(zip(rows, answers, strict=True)):
        chosen = torch.tensor(answer)
        best, tokens = logits.max(dim=1)
        gaps = best - logits.gather(1, chosen[:, None])[:, 0]
        # Of two tokens with equal logits either may be taken first: that is no difference.
        places = (gaps > 0).nonzero()[:, 0]
        if len(places):
            at = int(places[0])
            found.append(Divergence(number, at, int(tokens[at]), int(chosen[at]), float(gaps[at])))
    return found
