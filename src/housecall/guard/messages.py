"""What the user is told: fixed texts with the numbers of the user's country."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources.abc import Traversable
from typing import Annotated, Protocol

from pydantic import Field

from housecall.errors import ConfigError
from housecall.guard.packs import RuleLevel, Strict, read_yaml

_ORDER = ("crisis", "emergency", "dose", "off_topic")
_MOST_SIGNS = 4


class CrisisLine(Strict):
    """Whom to call in a crisis of mind."""

    text: str
    source: str
    checked: str


class Country(Strict):
    """The numbers of a country; ``codes`` are other codes it goes by."""

    codes: list[str] = Field(default=[])
    emergency: str
    source: str
    checked: str
    crisis: CrisisLine | None = None


class Texts(Strict):
    """The texts of one language; ``emergency_number`` and ``crisis_line`` stand in for numbers."""

    emergency_number: str
    crisis_line: str
    last_or: str
    messages: Annotated[dict[str, str], Field(min_length=1)]


class MessageFile(Strict):
    """``messages.yaml``."""

    review: str
    languages: Annotated[dict[str, Texts], Field(min_length=1)]
    countries: dict[str, Country]


class Sign(Protocol):
    """What a message is composed of: a rule, or an alarm of the second stage."""

    @property
    def level(self) -> RuleLevel:
        """What it raises."""
        ...

    @property
    def sign(self) -> str:
        """What the user is told that it may be, if anything."""
        ...

    @property
    def message(self) -> str:
        """The name of another message than the level's, if any."""
        ...


class Messages:
    """The messages for one country, in all languages."""

    def __init__(self, file: MessageFile, country: str | None) -> None:
        self._languages = file.languages
        self._country = _country(file, country)
        for language, texts in file.languages.items():
            for name in texts.messages:
                try:
                    self._text(language, name, [])
                except (KeyError, IndexError, ValueError) as error:
                    raise ConfigError(
                        f"guard file messages.yaml: {language}: message {name!r}: {error}: only "
                        "{signs}, {emergency_number} and {crisis_line} may stand in braces"
                    ) from error

    def has(self, name: str, language: str) -> bool:
        """Whether there is such a message in the language."""
        return language in self._languages and name in self._languages[language].messages

    def compose(self, rules: Iterable[Sign], language: str) -> str:
        """The text for the rules that fired: crisis before emergency; the rest only alone."""
        fired = sorted(rules, key=lambda rule: _ORDER.index(rule.level))
        urgent = [rule for rule in fired if rule.level in ("crisis", "emergency")]
        asked = [rule for rule in fired if rule.level == "dose"]
        signs: dict[str, list[str]] = {}
        for rule in urgent or asked or fired:
            found = signs.setdefault(rule.message or rule.level, [])
            if rule.sign and rule.sign not in found:
                found.append(rule.sign)
        return "\n\n".join(self._text(language, name, found) for name, found in signs.items())

    def _text(self, language: str, name: str, signs: Sequence[str]) -> str:
        texts, country = self._languages[language], self._country
        number = country.emergency if country else texts.emergency_number
        line = country.crisis.text if country and country.crisis else texts.crisis_line
        listed = _listed(signs[:_MOST_SIGNS], texts.last_or)
        text = texts.messages[name].strip()
        return text.format(signs=listed, emergency_number=number, crisis_line=line)


def load_messages(file: Traversable, country: str | None) -> Messages:
    """The messages for a country code of two letters. Raises ConfigError."""
    return Messages(read_yaml(file, MessageFile), country)


def _country(file: MessageFile, country: str | None) -> Country | None:
    if country is None:
        return None
    code = country.strip().upper()
    if not re.fullmatch(r"[A-Z]{2}", code):
        raise ConfigError(
            f"country {country!r}: give a code of two letters such as US, or leave it out"
        )
    for name, known in file.countries.items():
        if code == name or code in known.codes:
            return known
    return None


def _listed(signs: Sequence[str], last_or: str) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    if len(signs) < 2:
        return "".join(signs)
    return f"{', '.join(signs[:-1])} {last_or} {signs[-1]}"
