"""What the serving engine itself makes of a GGUF file: its tokens, its choices, its numbers.

The engine gives no logits of a prompt, but it tells the most likely next tokens with their
log-probabilities: asked for one token at a time behind a fixed text, it is read step by step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from housecall.engines.llama import LlamaEngine

TOP = 1000
"""Tokens whose log-probability is asked for: 25 ms a step; a whole vocabulary takes a second."""

_FORCE = 10_000.0  # a logit bias that no model outweighs


class Asked(Protocol):
    """An engine that is asked in its own terms."""

    async def probe(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One whole completion."""
        ...


@asynccontextmanager
async def running(model: Path, n_ctx: int) -> AsyncIterator[LlamaEngine]:
    """The engine with a file, for one conversation at a time."""
    engine = LlamaEngine(model, n_ctx=n_ctx, parallel=1, prompt_cache_mib=0)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def greedy(engine: LlamaEngine, prompt: Sequence[int], tokens: int) -> list[int]:
    """The most likely continuation, with the token that ended it, if one did."""
    body = {"prompt": list(prompt), "n_predict": tokens, "temperature": 0, "top_k": 1}
    answer = await engine.probe({**body, "cache_prompt": False, "return_tokens": True})
    found: list[int] = answer["tokens"]
    return found


async def next_token(engine: Asked, prompt: Sequence[int], letter: int) -> Mapping[int, float]:
    """Natural log-probabilities of the ``TOP`` most likely next tokens, by token id.

    The engine is made to say ``letter``, a token that is whole characters: of half a character it
    says nothing. What it tells are the model's own probabilities, before anything was forced.
    """
    body = {"prompt": list(prompt), "n_predict": 1, "temperature": 0, "n_probs": TOP}
    answer = await engine.probe({**body, "logit_bias": [[letter, _FORCE]], "cache_prompt": True})
    first = answer["completion_probabilities"][0]["top_logprobs"]
    return {entry["id"]: entry["logprob"] for entry in first}


async def stops_at(engine: LlamaEngine, prompt: Sequence[int], token: int) -> bool:
    """Whether an answer ends when the model says ``token``: it is made to say it."""
    body = {"prompt": list(prompt), "n_predict": 2, "temperature": 0}
    answer = await engine.probe({**body, "logit_bias": [[token, _FORCE]], "cache_prompt": False})
    return bool(answer["stop_type"] == "eos" and answer["tokens_predicted"] == 1)


async def tokens_read(engine: LlamaEngine, prompt: Sequence[int]) -> int:
    """How many tokens the engine makes of a prompt: more than it has is a BOS too many."""
    answer = await engine.probe({"prompt": list(prompt), "n_predict": 1, "cache_prompt": False})
    read: int = answer["tokens_evaluated"]
    return read
