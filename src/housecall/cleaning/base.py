"""What a rule is: it mends a text, or finds a fault in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from housecall.types import Message, Role

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Mend:
    """A rule that changes the texts of some roles; ``name`` is what it is counted under."""

    name: str
    change: Callable[[str], str]
    roles: frozenset[Role] = frozenset({"user", "assistant"})

    def apply(self, messages: Messages) -> Messages:
        """The mended dialogue."""
        return tuple(
            Message(m.role, self.change(m.content)) if m.role in self.roles else m for m in messages
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that rejects a dialogue when ``found`` in a text of ``role``.

    Each text is looked at alone, or all ``together``: a short turn of a longer talk is no fault.
    """

    name: str
    found: Callable[[str], bool]
    role: Role = "assistant"
    together: bool = False

    def applies(self, messages: Messages) -> bool:
        """True when the dialogue can't be used."""
        texts = [m.content for m in messages if m.role == self.role]
        return self.found("\n".join(texts)) if self.together else any(map(self.found, texts))


def words(text: str) -> int:
    """How many words a text has, between white space."""
    return len(text.split())
