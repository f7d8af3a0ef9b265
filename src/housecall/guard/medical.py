"""The medical guard: packs, reader and messages together.

It is deterministic, uses no model and no network, and is not a medical device: its rules were
written by the project and not reviewed by clinicians (docs/guard.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable

from housecall.errors import ConfigError
from housecall.guard.base import GuardResult, Level
from housecall.guard.matcher import ALARMING, Matcher
from housecall.guard.messages import Messages, load_messages
from housecall.guard.rules import RuleSet, load_rules
from housecall.types import Message

_CODE_VERSION = 1
"""Raised whenever the code reads the same packs in another way."""

_LANGUAGE = "en"
_ORDER: tuple[Level, ...] = ("crisis", "emergency", "dose")
_EARLIER_TURNS = 3
_FUNCTION_WORD_SHARE = 0.15


class MedicalGuard:
    """Finds emergencies, crises and questions about doses in what a user writes."""

    def __init__(self, rules: RuleSet, messages: Messages, version: str) -> None:
        self._rules = rules
        self._messages = messages
        self._version = version
        for rule in rules.rules.values():
            name = rule.message or rule.level
            if name not in messages:
                raise ConfigError(f"guard rule {rule.id!r}: messages.yaml has no message {name!r}")

    @classmethod
    def load(cls, country: str | None = None, folder: Traversable | None = None) -> MedicalGuard:
        """The guard with the shipped rules, or those in ``folder`` (laid out alike).

        ``country`` is a code of two letters; without it, or for a country whose numbers are not
        known here, messages say "your local emergency number".

        Raises ConfigError when anything in the packs is wrong: a guard is never silently off.
        """
        folder = resources.files("housecall.guard") if folder is None else folder
        packs = folder / "packs" / _LANGUAGE
        if not packs.is_dir():
            raise ConfigError(f"guard folder {folder}: no packs/{_LANGUAGE}: reinstall housecall")
        file = folder / "messages.yaml"
        return cls(load_rules(packs), load_messages(file, country), _version(packs, file))

    @property
    def version(self) -> str:
        """Names the rules and the way they are read; independent of where they are installed."""
        return self._version

    def check(self, text: str, history: Sequence[Message] = ()) -> GuardResult:
        """Read one message.

        Of ``history`` the last three messages of the user count, and only for combinations: a
        stiff neck now and the headache of the turn before are read together. Places are always
        those in ``text``.
        """
        matcher = Matcher(self._rules, text)
        matches = matcher.matches(self._earlier_concepts(history))
        fired = dict.fromkeys(match.rule for match in matches if match.assertion in ALARMING)
        rules = [self._rules.rules[rule] for rule in fired]
        levels = {rule.level for rule in rules}
        return GuardResult(
            level=next((level for level in _ORDER if level in levels), "none"),
            matches=tuple(matches),
            language=self._language(matcher.words),
            message=self._messages.compose(rules),
        )

    def _earlier_concepts(self, history: Sequence[Message]) -> frozenset[str]:
        asked = [message.content for message in history if message.role == "user"]
        turns = (Matcher(self._rules, text).concepts() for text in asked[-_EARLIER_TURNS:])
        return frozenset().union(*turns)

    def _language(self, words: Sequence[str]) -> str:
        """The language of the rules if enough of its function words are there, else ``und``."""
        known = sum(word in self._rules.function_words for word in words)
        enough = known and known >= _FUNCTION_WORD_SHARE * len(words)
        return self._rules.language if enough else "und"


def _version(packs: Traversable, messages: Traversable) -> str:
    """The code's number and a hash of all files that decide an answer."""
    digest = hashlib.sha256()
    files = [file for file in packs.iterdir() if file.name.endswith(".yaml")]
    for file in [*sorted(files, key=lambda file: file.name), messages]:
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return f"{_CODE_VERSION}-{digest.hexdigest()[:16]}"
