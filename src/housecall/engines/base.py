"""The engine protocol: what runs a model, seen from above.

An engine takes token ids, never text, so that nothing a user types can become a control token:
``chat_template`` has made the ids. Every engine here and ``fake`` pass the same contract suite
(tests/engines/test_contract.py).
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from housecall.types import Chunk, Completion, FinishReason, Sampling, TokenScore, Usage

END_OF_GENERATION = (
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "<EOT>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_utterance>",
    "[EOS]",
    "[EOT]",
)
"""Texts of the control tokens at which a generation ends (from llama.cpp's list)."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine runs. ``n_ctx`` is the window of ONE conversation, in tokens."""

    name: str
    model: str
    n_ctx: int
    parallel: int
    chat_template: str
    bos_token: str
    eos_token: str
    eog_ids: frozenset[int]
    prefix: tuple[int, ...] = ()
    """What this model wants before a text without a chat template: its BOS, or nothing."""


class Engine(Protocol):
    """Runs one model. All methods may be called from many tasks of one event loop."""

    @property
    def info(self) -> EngineInfo:
        """What is running; valid after ``start``."""
        ...

    @property
    def restarts(self) -> int:
        """How often it died and was started again."""
        ...

    async def start(self) -> None:
        """Load the model and wait until it answers.

        Raises EngineError when the model can't be loaded.
        """
        ...

    async def close(self) -> None:
        """Stop and free everything; may be called twice, and before ``start`` has ended."""
        ...

    async def ready(self) -> bool:
        """True when a request sent now would be answered."""
        ...

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text`` without BOS or EOS.

        With ``special``, the text of a control token (``<|im_end|>``) is that token; without, it
        is plain characters.
        """
        ...

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Generate from token ids. Closing the stream (``aclosing``) frees the engine's slot.

        Raises ContextLengthExceeded, EngineUnavailable, EngineBusy or EngineError; the last
        chunk carries ``finish_reason`` and ``usage``.
        """
        ...

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """A vector of length 1 for a text: the mean of the model's last states over its tokens.

        Raises ContextLengthExceeded, EngineUnavailable, EngineError, and ConfigError where this
        engine has no embeddings.
        """
        ...


def unit(vector: Sequence[float]) -> list[float]:
    """The vector of length 1 in the direction of ``vector``."""
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]


async def complete(engine: Engine, prompt: Sequence[int], sampling: Sampling) -> Completion:
    """Collect a stream into one answer."""
    text: list[str] = []
    ids: list[int] = []
    scores: list[TokenScore] = []
    finish: FinishReason = "stop"
    usage = Usage()
    async with aclosing(engine.stream(prompt, sampling)) as stream:
        async for chunk in stream:
            text.append(chunk.text)
            ids.extend(chunk.ids)
            scores.extend(chunk.scores)
            finish = chunk.finish_reason or finish
            usage = chunk.usage or usage
    return Completion("".join(text), finish, usage, tuple(ids), tuple(scores))
