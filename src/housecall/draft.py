"""An answer in the making."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from housecall.events import Answer, AnswerRequest, Timings
from housecall.guard.base import GuardResult
from housecall.memory import Window
from housecall.records import AnswerRecord
from housecall.types import Chunk, FinishReason, Sampling, ServedModel, TokenScore, Usage

PARAGRAPH = "\n\n"
"""What stands between the guard's message and the model's text."""


@dataclass(slots=True)
class Draft:
    """What is known of an answer so far."""

    request: AnswerRequest
    guard: GuardResult
    started: float = field(default_factory=perf_counter)
    turn: int | None = None
    """Its turn in the session, once the question is saved."""
    window: Window | None = None
    finish_reason: FinishReason | None = None
    gaps: list[float] = field(default_factory=list)
    """Seconds between two pieces of the model's stream."""
    _pieces: list[str] = field(default_factory=list)
    _scores: list[TokenScore] = field(default_factory=list)
    _tokens: int = 0
    _usage: Usage | None = None
    _first: float | None = None
    _last: float | None = None

    @property
    def session_id(self) -> str | None:
        """The session it belongs to."""
        return self.request.answered_in

    @property
    def urgent(self) -> bool:
        """Whether the guard's message must reach the user whatever fails."""
        return self.guard.level in ("emergency", "crisis")

    @property
    def text(self) -> str:
        """The guard's message and the model's text so far."""
        parts = (self.guard.message, "".join(self._pieces))
        return PARAGRAPH.join(part for part in parts if part)

    def sampling(self, *, fixed: bool) -> Sampling:
        """How the request asks to sample; ``fixed`` gives a seed where it has none."""
        asked = self.request.sampling
        return replace(asked, seed=0) if fixed and asked.seed is None else asked

    def add(self, chunk: Chunk) -> None:
        """Take in a piece of the stream."""
        now = perf_counter()
        if self._last is not None:
            self.gaps.append(now - self._last)
        self._last = now
        self._first = self._first or now
        self._pieces.append(chunk.text)
        self._scores += chunk.scores
        self._tokens += len(chunk.ids)
        self._usage = chunk.usage or self._usage
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def add_text(self, text: str) -> None:
        """Take in text that the guard had held back."""
        self._pieces.append(text)

    def answer(self, model: ServedModel) -> Answer:
        """The answer, once it is whole."""
        return Answer(
            id=self.request.answer_id,
            request_id=self.request.request_id,
            text=self.text,
            finish_reason=self.finish_reason or "stop",
            usage=self.usage(),
            timings=self.timings(),
            guard=self.guard,
            model=model,
            context=self._context(),
            session_id=self.session_id,
            turn=self.turn,
            scores=tuple(self._scores),
        )

    def record(self, model: ServedModel, guard_version: str) -> AnswerRecord:
        """What is saved of the answer beside its text."""
        return AnswerRecord(
            id=self.request.answer_id,
            request_id=self.request.request_id,
            kind=self.request.kind,
            session_id=self.session_id if self.turn else None,
            turn=self.turn,
            created_at=datetime.now(UTC),
            finish_reason=self.finish_reason,
            text_sha256=hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest(),
            model=describe_model(model),
            lineage=model.lineage,
            guard=_without_words(self.guard),
            guard_version=guard_version,
            sampling=asdict(self.request.sampling),
            usage=asdict(self.usage()),
            timings=asdict(self.timings()),
            context=self._context(words=False),
        )

    def _context(self, *, words: bool = True) -> dict[str, Any] | None:
        return self.window.as_dict(words=words) if self.window else None

    def usage(self) -> Usage:
        """Token counts so far."""
        read = len(self.window.prompt) if self.window else 0
        return self._usage or Usage(prompt_tokens=read, completion_tokens=self._tokens)

    def timings(self) -> Timings:
        """Times so far."""
        total = _milliseconds(self.started, perf_counter())
        if self._first is None or self._last is None:
            return Timings(None, total, None)
        seconds, after_first = self._last - self._first, self.usage().completion_tokens - 1
        speed = round(after_first / seconds, 2) if seconds and after_first > 0 else None
        return Timings(_milliseconds(self.started, self._first), total, speed)


def describe_model(model: ServedModel) -> dict[str, Any]:
    """The ``model`` of an answer."""
    return {
        "name": model.name,
        "format": model.format,
        "sha256": model.sha256,
        "run": model.run,
        "gated": model.gated,
    }


def _without_words(guard: GuardResult) -> dict[str, Any]:
    """The guard's result without what it quotes of the user, which only a session may keep."""
    found = guard.as_dict()
    matches = [{k: v for k, v in match.items() if k != "text"} for match in found["matches"]]
    return found | {"matches": matches}


def _milliseconds(start: float, end: float) -> float:
    return round((end - start) * 1000, 1)
