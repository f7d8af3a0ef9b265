"""What is measured, what is asked of it, and what came out: plain values that travel as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Kind = Literal["folder", "gguf", "server"]
Tell = Callable[[str], None]
"""Is told what was done, one piece of the plan after the other."""

PIECE_LOADED, PIECE_ANSWER = "loaded", "answer"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure: a folder of transformers, a GGUF file, or a server by its URL."""

    name: str
    kind: Kind
    place: str
    bytes: int | None

    @property
    def path(self) -> Path:
        """Its folder or file on this machine."""
        return Path(self.place)


@dataclass(frozen=True, slots=True)
class LetterQuestion:
    """A question up to the place where the letter of an option comes next, as token ids.

    ``letters`` are the tokens of A, B, C...; ``answer`` (from 0) is the right one.
    """

    ids: list[int]
    letters: list[int]
    answer: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question: the ids that models get, and the same as text for servers that take text."""

    ids: list[int]
    system: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one visit does.

    ``speed`` are the prompts that are timed, ``new_tokens`` greedy tokens behind each.
    ``together`` are prompts of one length, of which ``batches`` are answered at once. ``answers``
    are read by people and end where the model ends them; ``letters`` are scored.
    """

    threads: int
    speed: list[Prompt]
    new_tokens: int
    together: list[Prompt]
    batches: list[int]
    answers: list[Prompt]
    answer_tokens: int
    letters: list[LetterQuestion]
    ends: list[int]

    @property
    def pieces(self) -> int:
        """How often ``Tell`` is called."""
        return 1 + len(self.speed) + len(self.batches) + bool(self.answers) + bool(self.letters)

    @property
    def window(self) -> int:
        """Tokens that the longest conversation of it takes."""
        timed = [len(p.ids) + self.new_tokens for p in (*self.speed, *self.together)]
        read = [len(p.ids) + self.answer_tokens for p in self.answers]
        return max([*timed, *read, *(len(q.ids) + 1 for q in self.letters)])


@dataclass(frozen=True, slots=True)
class Streamed:
    """One answer as it came: seconds from the request to each token.

    ``engine_seconds`` is what the engine itself says it took from the first token to the last.
    """

    prompt_tokens: int
    tokens: int
    arrivals: list[float]
    engine_seconds: float | None = None

    @property
    def rate(self) -> float:
        """New tokens a second after the first one; of the whole answer if it came in one piece."""
        seconds = self.arrivals[-1] - self.arrivals[0]
        return (self.tokens - 1) / seconds if seconds > 0 else self.tokens / self.arrivals[-1]


@dataclass(frozen=True, slots=True)
class Whole:
    """One answer that came in one piece, in seconds; ``engine_seconds`` as the engine says."""

    tokens: int
    seconds: float
    engine_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Together:
    """``size`` answers made at once: all their tokens, and seconds until the last was there."""

    size: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one life of a model's process gave.

    ``settings`` are those of the engine. ``token_bytes`` of weights are read for each new token.
    ``busy`` is the share of this machine's cores that other programs took meanwhile. ``letters``
    are the options that were chosen.
    """

    engine: str
    settings: dict[str, Any]
    computes_in: str
    load_seconds: float | None
    whole: list[Whole]
    streamed: list[Streamed]
    together: list[Together]
    token_bytes: int | None
    peak_memory_bytes: int | None
    peak_gpu_bytes: int | None
    cpu_seconds: float | None
    answers: list[str] | None = None
    letters: list[int] | None = None
    busy: float | None = None


def plain(value: Any) -> dict[str, Any]:
    """One of these values as plain JSON."""
    found: dict[str, Any] = asdict(value)
    return found


class Visits(Protocol):
    """Starts a model in a process of its own, does the work and ends the process.

    Raises HousecallError when the model can't be loaded or fails.
    """

    def __call__(self, subject: Subject, work: Work, tell: Tell) -> Visit:
        """Visit one model."""
        ...
