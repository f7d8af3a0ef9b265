"""Rule packs: YAML files that a clinician can read, checked before they are used.

A folder holds the packs of one language: ``language.yaml`` (spellings, function words),
``common_words.txt`` (more words to recognise the language by), ``reading.yaml`` (the words of
negation, time and person) and any number of packs of concepts and rules. A pack that is wrong in
any way is refused with its file, its rule and what is wrong: a guard with a hole is not one.
"""

from __future__ import annotations

from collections.abc import Hashable
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from housecall.errors import ConfigError
from housecall.guard.base import Assertion

RuleLevel = Literal["emergency", "crisis", "dose", "off_topic"]
Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
_Sentence = Annotated[str, Field(min_length=1)]
_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9 -]*$")]


class Strict(BaseModel):
    """What a file may hold, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Examples(Strict):
    """Messages that must raise the alarm by this rule, and that must not. They run as tests."""

    positive: Annotated[list[_Sentence], Field(min_length=1)]
    negative: Annotated[list[_Sentence], Field(min_length=1)]


class CountedConcepts(Strict):
    """``at_least`` so many different ones ``of`` these concepts."""

    at_least: Annotated[int, Field(ge=2)]
    of: Annotated[list[_Name], Field(min_length=2)]


class Rule(Strict):
    """One reason to alarm.

    It fires on any of ``patterns``, of ``combinations`` (``headache + stiff neck``: all of these
    concepts in one message) or of ``sums`` (so many of several concepts). ``unless`` takes back
    what it overlaps, such as idioms; within 30 words of
    a concept of ``not_with`` a finding is read as supposed.
    ``not_lowered_by`` names the readings that leave the alarm standing; one that ``stands`` is not
    withdrawn by the second stage either. ``sign`` is what the user
    is told that it may be; ``message`` names another message than the level's.
    """

    id: _Id
    level: RuleLevel
    title: _Sentence
    why: _Sentence
    source: _Sentence
    sign: str = ""
    message: str = ""
    patterns: list[str] = []
    combinations: list[str] = []
    sums: list[CountedConcepts] = []
    unless: list[str] = []
    not_with: list[_Name] = []
    not_lowered_by: list[Assertion] = []
    stands: bool = False
    examples: Examples


class Pack(Strict):
    """Concepts and rules. Concepts serve all packs of the language.

    Concepts of ``background`` count although they are past: what led to an illness.
    """

    pack: _Id
    review: _Sentence
    background: list[_Name] = []
    concepts: dict[_Name, Patterns] = {}
    rules: list[Rule] = []


class Language(Strict):
    """How a language is written, and the words by which it is recognised.

    ``gap_stops`` are words that a gap in a pattern does not go over. With ``elisions`` an
    apostrophe parts two words: j'ai. ``played_down`` are phrases that make light of a message.
    """

    language: Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Z][a-z]{3})?$")]
    spellings: dict[str, str]
    function_words: list[str]
    gap_stops: list[str]
    elisions: bool = False
    played_down: list[_Sentence] = []


class Cues(Strict):
    """Words that change how a finding is read. What each list does is told in ``context.py``."""

    negation: list[_Sentence] = []
    negation_near: list[_Sentence] = []
    negation_after: list[_Sentence] = []
    negation_stops: list[_Sentence] = []
    not_negation: list[_Sentence] = []
    list_words: list[_Sentence] = []
    past: list[_Sentence] = []
    not_past: list[_Sentence] = []
    past_stops: list[_Sentence] = []
    resolved: list[_Sentence] = []
    present: list[_Sentence] = []
    hypothetical: list[_Sentence] = []
    not_hypothetical: list[_Sentence] = []
    question: list[_Sentence] = []
    question_after: list[_Sentence] = []
    personal: list[_Sentence] = []
    other_person: list[_Sentence] = []
    first_person: list[_Sentence] = []
    terminators: list[_Sentence] = []


_Model = TypeVar("_Model", bound=Strict)


def read_words(file: Traversable) -> list[str]:
    """The words of a file that has one a line and comments after ``#``; none without the file."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def read_yaml(file: Traversable, model: type[_Model]) -> _Model:
    """A file as a checked value. Raises ConfigError."""
    where = f"guard file {file.name}"
    try:
        raw = yaml.load(file.read_bytes(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"{where}: can't be read: {error}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        line, problem = _first_problem(error, raw, yaml.compose(file.read_bytes(), _Loader))
        raise ConfigError(f"{where}:{line}: {problem}") from error


def line_of(file: Traversable, wanted: str) -> str:
    """``:12`` for the first line that holds the text; empty when a line break parts it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((f":{n}" for n, line in enumerate(lines, start=1) if wanted in line), "")


def read_packs(folder: Traversable) -> dict[str, Pack]:
    """The packs of a language by file name. Raises ConfigError, also for two rules of one id."""
    packs: dict[str, Pack] = {}
    places: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml") and file.name not in ("language.yaml", "reading.yaml"):
            packs[file.name] = pack = read_yaml(file, Pack)
            names = [f"rule {rule.id!r}" for rule in pack.rules]
            for name in [*names, *(f"concept {concept!r}" for concept in pack.concepts)]:
                if name in places:
                    what, _, quoted = name.partition(" ")
                    key = quoted.strip("'")
                    line = line_of(file, f"id: {key}" if what == "rule" else f"{key}:")
                    raise ConfigError(
                        f"guard file {file.name}{line}: {name} is already in {places[name]}: "
                        "give one of them another name"
                    )
                places[name] = file.name
    if not any(pack.rules for pack in packs.values()):
        raise ConfigError(f"guard folder {folder.name}: no rule in it: reinstall housecall")
    return packs


class _Loader(yaml.CSafeLoader):
    """Safe YAML that refuses a key given twice, where the standard takes the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are all different."""
        keys = [key.value for key, _ in node.value]
        for place, key in enumerate(keys if len({*map(str, keys)}) < len(keys) else ()):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is there twice", node.value[place][0].start_mark
                )
        return super().construct_mapping(node, deep)


def _first_problem(error: ValidationError, raw: Any, root: yaml.Node | None) -> tuple[int, str]:
    """The line, and ``rule 'stroke': examples.positive: Field required``."""
    first = error.errors()[0]
    parts = list(first["loc"])
    line = _line(root, parts)
    prefix = ""
    if parts[:1] == ["rules"] and len(parts) > 1:
        rule = raw["rules"][parts[1]]
        name = rule.get("id", parts[1]) if isinstance(rule, dict) else parts[1]
        prefix, parts = f"rule {name!r}: ", parts[2:]
    key = ".".join(map(str, parts))
    return line, f"{prefix}{key}: {first['msg']}" if key else f"{prefix}{first['msg']}"


def _line(node: yaml.Node | None, parts: list[int | str]) -> int:
    """The line of the innermost part that is there."""
    line = 1
    for part in parts:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
