"""What the user is told: fixed texts with the numbers of the user's country."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources.abc import Traversable
from typing import Annotated

from pydantic import Field

from housecall.errors import ConfigError
from housecall.guard.packs import Rule, Strict, read_yaml

_ORDER = ("crisis", "emergency", "dose")


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


class Unknown(Strict):
    """What stands in for the numbers of a country that is not known."""

    emergency_number: str
    crisis_line: str


class MessageFile(Strict):
    """``messages.yaml``."""

    review: str
    unknown: Unknown
    messages: Annotated[dict[str, str], Field(min_length=1)]
    countries: dict[str, Country]


class Messages:
    """The messages of one country."""

    def __init__(self, file: MessageFile, country: str | None) -> None:
        self._texts = {name: text.strip() for name, text in file.messages.items()}
        self._numbers = file.unknown.model_dump()
        if known := _country(file, country):
            self._numbers["emergency_number"] = known.emergency
            if known.crisis:
                self._numbers["crisis_line"] = known.crisis.text
        for name in self._texts:
            try:
                self._text(name, [])
            except (KeyError, IndexError, ValueError) as error:
                raise ConfigError(
                    f"guard file messages.yaml: message {name!r}: {error}: only {{signs}}, "
                    "{emergency_number} and {crisis_line} may stand in braces"
                ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def compose(self, rules: Iterable[Rule]) -> str:
        """The text for the rules that fired: crisis before emergency; doses only alone."""
        fired = sorted(rules, key=lambda rule: _ORDER.index(rule.level))
        urgent = [rule for rule in fired if rule.level != "dose"]
        signs: dict[str, list[str]] = {}
        for rule in urgent or fired:
            found = signs.setdefault(rule.message or rule.level, [])
            if rule.sign and rule.sign not in found:
                found.append(rule.sign)
        return "\n\n".join(self._text(name, found) for name, found in signs.items())

    def _text(self, name: str, signs: Sequence[str]) -> str:
        return self._texts[name].format(signs=_listed(signs), **self._numbers)


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


def _listed(signs: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    if len(signs) < 2:
        return "".join(signs)
    return f"{', '.join(signs[:-1])} or {signs[-1]}"
