"""A fact that a conversation must not lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["allergy", "pregnancy", "medicine", "condition", "age", "date"]

PRIORITY: tuple[Kind, ...] = ("allergy", "pregnancy", "medicine", "condition", "age", "date")
"""Most important first: where there is no room for all facts, the last ones give way."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a user said, in their own words.

    The words are the fact: "I'm not allergic to latex" is kept as just that. ``kind``, ``names``
    (what it is about), ``negated`` and ``about`` (``me``, or ``son``) only serve to rank facts and
    to bring a correction to the fact that it corrects.
    """

    kind: Kind
    text: str
    turn: int
    names: tuple[str, ...] = ()
    negated: bool = False
    about: str = "me"

    def as_dict(self) -> dict[str, Any]:
        """The fact as it is saved."""
        return asdict(self) | {"names": list(self.names)}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Fact:
        """The fact that ``as_dict`` saved."""
        return cls(**{**saved, "names": tuple(saved["names"])})
