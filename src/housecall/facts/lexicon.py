"""Names of medicines, allergens and conditions in what a user writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

NameKind = Literal["medicine", "allergen", "condition"]

_WORD = re.compile(r"[^\W_](?:[^\W_]|['-](?=[^\W_]))*")
_LONGEST_NAME = 3  # words
_SHORTEST_STEM = 6  # characters: endings of shorter words mean nothing


@dataclass(frozen=True, slots=True)
class Name:
    """A name found at ``start`` to ``end`` of a text."""

    text: str
    kind: NameKind
    start: int
    end: int


class Lexicon:
    """Known names, and the endings by which others are recognised."""

    def __init__(self, source: dict[str, Any]) -> None:
        self._names: dict[str, NameKind] = {}
        kinds: tuple[tuple[str, NameKind], ...] = (
            ("allergens", "allergen"),
            ("conditions", "condition"),
            ("medicines", "medicine"),
        )
        for key, kind in kinds:
            self._names |= {name: kind for group in source[key] for name in group}
        self._endings: tuple[tuple[NameKind, tuple[str, ...], frozenset[str]], ...] = (
            (
                "medicine",
                tuple(source["medicine_endings"]),
                frozenset(source["not_medicines"]),
            ),
            (
                "condition",
                tuple(source["condition_endings"]),
                frozenset(source["not_conditions"]),
            ),
        )

    def find(self, text: str) -> list[Name]:
        """All names in a text in lower case, the longest ones first where they overlap."""
        return list(self._find(text))

    def _find(self, text: str) -> Iterator[Name]:
        words = list(_WORD.finditer(text))
        place = 0
        while place < len(words):
            length, kind = self._longest(text, words[place : place + _LONGEST_NAME])
            if kind:
                start, end = words[place].start(), words[place + length - 1].end()
                yield Name(text[start:end], kind, start, end)
            place += length

    def _longest(self, text: str, words: list[re.Match[str]]) -> tuple[int, NameKind | None]:
        for length in range(len(words), 0, -1):
            name = text[words[0].start() : words[length - 1].end()]
            if kind := self._kind(name):
                return length, kind
        return 1, None

    def _kind(self, name: str) -> NameKind | None:
        for form in (name, name.removesuffix("'s"), name.removesuffix("s")):
            if form in self._names:
                return self._names[form]
        stem = name.removesuffix("s") if not name.endswith(("sis", "itis")) else name
        if len(stem) >= _SHORTEST_STEM and stem.isalpha():
            for kind, endings, exceptions in self._endings:
                if stem.endswith(endings) and stem not in exceptions:
                    return kind
        return None


@cache
def lexicon() -> Lexicon:
    """The names that ship with Housecall."""
    import yaml  # here: only conversations that outgrow their window need it

    file = resources.files("housecall.facts") / "lexicon.yaml"
    return Lexicon(yaml.safe_load(file.read_text(encoding="utf-8")))
