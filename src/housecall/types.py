"""The values that travel between the layers. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "guard", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Defaults are the API's; ``temperature`` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    """How many likely tokens are told beside each one that is chosen; None: no probabilities."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token and the natural logarithm of its probability, before temperature and the like.

    ``top`` are the likeliest tokens in its place. ``data`` are the bytes of ``text``, which may
    be a part of a character.
    """

    text: str
    data: bytes
    logprob: float
    top: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer. ``cached_tokens`` of the prompt were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The last one has a ``finish_reason`` and the ``usage``.

    ``text`` is always whole characters: bytes of a character split over tokens are held back.
    ``scores`` are those of its tokens, where the request asked for them.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    ids: tuple[int, ...] = ()
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model behind an answer, and what stands behind the model.

    ``lineage`` goes from the variant to the data set, one entry an artifact:
    ``{"kind", "path", "sha256", ...facts}``; empty for a bare GGUF file.
    """

    name: str
    format: str
    sha256: str
    path: Path
    run: str | None = None
    gated: bool = False
    system_prompt: str | None = None
    lineage: tuple[Mapping[str, Any], ...] = ()
