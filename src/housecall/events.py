"""What goes into an answer, and the events that come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from housecall.guard.base import GuardResult
from housecall.records import Kind, new_id
from housecall.types import FinishReason, Message, Sampling, ServedModel, TokenScore, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """A question. The last of ``messages`` is the user's.

    A ``chat`` gives only that one, with a system message before it or not; the rest of the
    conversation is in its session, a new one when ``session_id`` is None. ``owner`` is whose
    session and answer it is; they are nobody else's. With ``raw`` the only message is a text that
    the model goes on with, without its chat template.
    """

    kind: Kind
    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    session_id: str | None = None
    raw: bool = False
    owner: str = ""
    answer_id: str = field(default_factory=lambda: new_id("ans"))
    new_session_id: str = field(default_factory=lambda: new_id("ses"))

    @property
    def answered_in(self) -> str | None:
        """The session that the answer belongs to, new or not; None where nothing is kept."""
        if self.kind != "chat":
            return None
        return self.session_id or self.new_session_id


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds to the model's first token and in all, and its tokens a second after that.

    None where the model gave no token, or only one.
    """

    ttft_ms: float | None
    total_ms: float
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. ``text`` begins with the guard's message, if it has one."""

    id: str
    request_id: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    guard: GuardResult
    model: ServedModel
    context: Mapping[str, Any] | None
    session_id: str | None
    turn: int | None
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Guarded:
    """The guard found something; its message, if it has one, comes before every token."""

    guard: GuardResult


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the model's text, with the scores of its tokens where they were asked for."""

    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer, saved. Always the last event."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of a text, of length 1, and the number of its tokens."""

    vector: list[float]
    tokens: int


Event = Guarded | Token | Done
