"""The medical guard: packs, readers and messages together.

It is deterministic, uses no model and no network, and is not a medical device: its rules were
written by the project and not reviewed by clinicians (docs/guard.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

from housecall.errors import ConfigError
from housecall.guard.base import GuardMatch, GuardResult, Level
from housecall.guard.languages import UNKNOWN, Detected, Detector
from housecall.guard.learned import LearnedReader
from housecall.guard.matcher import ALARMING, Matcher
from housecall.guard.messages import Messages, load_messages
from housecall.guard.output import OutputPolicy, OutputReader
from housecall.guard.packs import Rule
from housecall.guard.rule_sets import WEIGHTS, RuleSets, hash_of
from housecall.guard.rules import RuleSet
from housecall.guard.text import Token, split
from housecall.types import Message

_CODE_VERSION = 7
"""Raised whenever the code reads the same packs in another way."""

PARAGRAPH = "\n\n"
"""What stands between the guard's message and the model's text."""

_FIRST_LANGUAGE = "en"
_ORDER: tuple[Level, ...] = ("crisis", "emergency", "dose", "off_topic")
_EARLIER_TURNS = 3
_MOST_KNOWN = 4_096
_SHORTEST_UNKNOWN = 5
"""Words of a message from which on it says something that no language was recognised."""

OffTopic = Literal["allow", "warn", "refuse"]


HARMLESS = "learned:harmless"
"""The match of the second stage that withdraws an alarm of the rules."""


@dataclass(frozen=True, slots=True)
class Learned:
    """An alarm of the second stage, in the place of a rule."""

    level: Literal["emergency", "crisis"]
    sign: str = "something that can't wait"
    message: str = ""
    stands: bool = False

    @property
    def rule(self) -> str:
        """The name of its match."""
        return f"learned:{self.level}"


class MedicalGuard:
    """Finds emergencies, crises and questions about doses in what a user writes."""

    def __init__(
        self,
        rules: RuleSets,
        detector: Detector,
        messages: Messages,
        version: str,
        off_topic: OffTopic = "allow",
        output: OutputPolicy = "mark",
    ) -> None:
        self._rules = rules
        self._detector = detector
        self._messages = messages
        self._version = version
        self._off_topic = off_topic
        self._output = output
        self._known: dict[tuple[str, bytes], frozenset[str]] = {}

    @classmethod
    def load(
        cls,
        country: str | None = None,
        folder: Traversable | None = None,
        off_topic: OffTopic = "allow",
        output: OutputPolicy = "mark",
        learned: bool = True,
    ) -> MedicalGuard:
        """The guard with the shipped rules, or those in ``folder`` (laid out alike).

        ``country`` is a code of two letters; without it, or for a country whose numbers are not
        known here, messages say "your local emergency number". ``off_topic`` says what becomes of
        a message that is about something else than health: nothing, a warning, a refusal.
        ``output`` is what becomes of a dangerous sentence in the model's answer. Without
        ``learned`` the rules stand alone.

        Raises ConfigError when anything in the packs is wrong: a guard is never silently off.
        """
        folder = resources.files("housecall.guard") if folder is None else folder
        packs = folder / "packs"
        if not (packs / _FIRST_LANGUAGE).is_dir():
            raise ConfigError(
                f"guard folder {folder}: no packs/{_FIRST_LANGUAGE}: reinstall housecall"
            )
        folders = sorted((one for one in packs.iterdir() if one.is_dir()), key=lambda f: f.name)
        folders.sort(key=lambda one: one.name != _FIRST_LANGUAGE)
        messages = load_messages(folder / "messages.yaml", country)
        edited = hash_of([*folders, folder / "messages.yaml"]) != _verified(packs)
        accept = partial(_check_messages, messages)
        rules = RuleSets(folders, accept, at_once=edited, learned=learned)
        files = [folder / "languages.yaml", folder / "messages.yaml"]
        read = hash_of([*folders, *files], besides=() if learned else (WEIGHTS,))
        return cls(
            rules,
            Detector(rules.words, files[0]),
            messages,
            f"{_CODE_VERSION}-{read[:16]}",
            off_topic,
            output,
        )

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
        tokens = split(text)
        detected = self._detector.detect(text, tokens)
        asked = [message.content for message in history if message.role == "user"]
        earlier = asked[-_EARLIER_TURNS:]
        matches: list[GuardMatch] = []
        fired: dict[tuple[str, str], Rule | Learned] = {}
        told_before = False
        for language in detected.read:
            rules = self._rules[language]
            before = frozenset[str]().union(*(self._told(rules, said) for said in earlier))
            told_before |= bool(before)
            for match in Matcher(rules, text, tokens).matches(before):
                rule = rules.rules[match.rule]
                if rule.level == "off_topic" and self._off_topic == "allow":
                    continue
                matches.append(match)
                if match.assertion in ALARMING:
                    fired[language, match.rule] = rule
        language = detected.language
        if reader := self._rules.reader(language) if language in self._rules else None:
            lowered = any(match.assertion not in ALARMING for match in matches)
            matches += _second_stage(
                reader, language, text, tokens, fired, told_before=told_before, lowered=lowered
            )
        levels = {rule.level for rule in fired.values()}
        return GuardResult(
            level=next((level for level in _ORDER if level in levels), "none"),
            matches=tuple(sorted(matches, key=lambda match: (match.start, -match.end))),
            language=detected.language,
            message=self._message(detected.language, fired),
            covered=self._covers(detected, tokens),
        )

    def _told(self, rules: RuleSet, said: str) -> frozenset[str]:
        """The concepts that an earlier message asserts; each turn of a chat asks for them again."""
        digest = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        key = rules.language, digest  # no message is kept
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = Matcher(rules, said, split(said)).concepts()
        return found

    def answer_reader(self, result: GuardResult, messages: Sequence[Message]) -> OutputReader:
        """Reads the answer to the last of ``messages``, which ``result`` is about."""
        return OutputReader(
            "\n".join(message.content for message in messages),
            urgent=result.level in ("emergency", "crisis"),
            policy=self._output,
            offset=len(result.message) + len(PARAGRAPH) if result.message else 0,
        )

    def _message(self, detected: str, fired: dict[tuple[str, str], Rule | Learned]) -> str:
        """In the language of the message, if rules of that language fired."""
        languages = [language for language, _ in fired]
        language = detected if detected in languages else next(iter(languages), _FIRST_LANGUAGE)
        own = [rule for (name, _), rule in fired.items() if name == language]
        urgent = {rule.level for rule in fired.values()} - {rule.level for rule in own}
        others = [rule for rule in fired.values() if rule.level in urgent]
        return self._messages.compose([*own, *others], language)

    def _covers(self, detected: Detected, tokens: Sequence[Token]) -> bool:
        if detected.language != UNKNOWN:
            return detected.language in self._rules
        return bool(detected.read) and len(tokens) < _SHORTEST_UNKNOWN


def _second_stage(
    reader: LearnedReader,
    language: str,
    text: str,
    tokens: Sequence[Token],
    fired: dict[tuple[str, str], Rule | Learned],
    *,
    told_before: bool,
    lowered: bool,
) -> list[GuardMatch]:
    """Raise what no rule raised; withdraw what rules raised on words that weigh plainly less.

    Never withdrawn are what earlier messages completed, a rule that ``stands``, one of another
    language than the reader's, and an alarm beside a question about a dose, which sounds harmless.
    """
    urgent = {k: s.level for k, s in fired.items() if s.level in ("crisis", "emergency")}
    reading = reader.read(tokens, set(urgent.values()), lowered)
    if reading.start == reading.end:
        return []
    start, end = tokens[reading.start].start, tokens[reading.end - 1].end
    if reading.verdict == "alarm" and not urgent:
        sign = Learned("crisis" if reading.crisis else "emergency")
        fired[language, sign.rule] = sign
        return [GuardMatch(sign.rule, text[start:end], start, end, "present")]
    ours = all(key in urgent and key[0] == language and not s.stands for key, s in fired.items())
    if reading.verdict == "harmless" and urgent and ours and not told_before:
        for key in urgent:
            del fired[key]
        return [GuardMatch(HARMLESS, text[start:end], start, end, "present")]
    return []


def _check_messages(messages: Messages, rules: RuleSet) -> None:
    """Raises ConfigError when a rule says a message that is not there in its language."""
    for rule in rules.rules.values():
        name = rule.message or rule.level
        if not messages.has(name, rules.language):
            raise ConfigError(
                f"guard rule {rule.id!r} ({rules.language}): messages.yaml has no message "
                f"{name!r} in this language"
            )


def _verified(packs: Traversable) -> str:
    """The hash of the packs and messages that the tests have compiled; empty without the file."""
    file = packs / "verified.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line for line in lines if not line.startswith("#")), "")
