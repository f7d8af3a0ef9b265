"""What the rest of Housecall sees of the guard: a result for a message, and who gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from housecall.types import Message

Level = Literal["none", "emergency", "crisis", "dose", "off_topic"]
Assertion = Literal["present", "negated", "past", "other_person", "hypothetical", "question"]


@dataclass(frozen=True, slots=True)
class GuardMatch:
    """One rule that was found; ``text`` is ``message[start:end]``, as the user wrote it."""

    rule: str
    text: str
    start: int
    end: int
    assertion: Assertion


@dataclass(frozen=True, slots=True)
class GuardResult:
    """What the guard found in one message.

    ``message`` is what the user is told before anything else, empty when there is nothing to say.
    ``covered`` is False when the message is in a language that there are no rules for.
    """

    level: Level = "none"
    matches: tuple[GuardMatch, ...] = ()
    language: str = "und"
    message: str = ""
    output: tuple[dict[str, Any], ...] = ()
    covered: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The fields as they go over the wire."""
        return asdict(self) | {
            "matches": [asdict(match) for match in self.matches],
            "output": list(self.output),
        }


class AnswerReader(Protocol):
    """Reads what the model says as it streams; ``stopped`` is True when it must end."""

    stopped: bool

    @property
    def findings(self) -> tuple[dict[str, Any], ...]:
        """The ``output`` of the guard's result."""
        ...

    def read(self, piece: str) -> str:
        """Take a piece of the stream; returns what may be sent now."""
        ...

    def close(self) -> str:
        """The end of the stream; returns what was still held back."""
        ...


class Guard(Protocol):
    """Reads a user's message before a model does, and the answer while it comes."""

    @property
    def version(self) -> str:
        """Names the rules, so that an answer can say which ones it was read with."""
        ...

    def check(self, text: str, history: Sequence[Message] = ()) -> GuardResult:
        """Read one message; ``history`` is the conversation before it."""
        ...

    def answer_reader(self, result: GuardResult, messages: Sequence[Message]) -> AnswerReader:
        """A reader for the answer to the last of ``messages``, which ``result`` is about."""
        ...
