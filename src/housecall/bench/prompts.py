"""The fixed prompts of every bench, and questions laid out for the letter of an option."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from housecall.bench.base import LetterQuestion, Prompt
from housecall.chat_template import IGNORE, encode, encode_for_training
from housecall.checks.questions import Question
from housecall.errors import DataError
from housecall.steps.base import HfTokenizer, load_template
from housecall.types import Message

_FILE = "bench_prompts.yaml"
_ASK = "Answer with the letter of the right option only."


def read_prompts() -> list[str]:
    """The questions that ship with the package, in their order."""
    text = (resources.files("housecall") / "data" / _FILE).read_text("utf-8")
    found: list[str] = yaml.safe_load(text)
    return found


class Asker:
    """Makes prompts for one model: its tokenizer, its template, its system prompt."""

    def __init__(self, folder: Path, system: str | None) -> None:
        self._tokenizer = HfTokenizer(folder)
        self._template = load_template(folder, self._tokenizer)
        self._system = system
        self.ends = sorted(self._tokenizer.end_of_turn)

    def ask(self, text: str) -> Prompt:
        """One question."""
        segments = self._template.segments(self._messages(text), add_generation_prompt=True)
        return Prompt(encode(segments, self._tokenizer), self._system, text)

    def long_prompts(self, count: int, tokens: int, number: int) -> list[Prompt]:
        """``count`` prompts whose user text has ``tokens`` tokens, each beginning differently.

        They begin with ``number`` and their own, so that no server knows a beginning from before.
        """
        texts = read_prompts()
        found = []
        for place in range(count):
            turned = texts[place % len(texts) :] + texts[: place % len(texts)]
            found.append(self._long(f"Letter {number}-{place}. ", turned, tokens))
        return found

    def of_one_length(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The same with their ids cut to the shortest: a batch then needs no padding."""
        length = min((len(p.ids) for p in prompts), default=0)
        return [Prompt(p.ids[:length], p.system, p.text) for p in prompts]

    def letters(self, questions: Sequence[Question]) -> list[LetterQuestion]:
        """Questions with their options named by letters, up to where the answer's letter stands."""
        return [self._letters(question) for question in questions]

    def _long(self, start: str, texts: Sequence[str], tokens: int) -> Prompt:
        text = start
        while len(ids := self._tokenizer(text, special=False)) < tokens:
            text += " ".join(texts) + " "
        return self.ask(self._tokenizer.decode(ids[:tokens]))

    def _messages(self, text: str) -> list[Message]:
        system = [Message("system", self._system)] if self._system else []
        return [*system, Message("user", text)]

    def _letters(self, question: Question) -> LetterQuestion:
        names = [chr(ord("A") + i) for i in range(len(question.options))]
        options = "\n".join(f"{n}. {text}" for n, text in zip(names, question.options, strict=True))
        asked = self._messages(f"{question.text}\n\n{options}\n\n{_ASK}")
        ids: list[int] = []
        letters = []
        for name in names:
            row = encode_for_training(
                self._template.segments([*asked, Message("assistant", name)]), self._tokenizer, ()
            )
            place = next(i for i, label in enumerate(row.labels) if label != IGNORE)
            ids = row.ids[:place]
            letters.append(row.ids[place])
        if len(set(letters)) < len(letters):
            raise DataError("this model's tokenizer has no token of its own for each letter")
        return LetterQuestion(ids, letters, question.answer)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What always naming the commonest right letter would score."""

    letter: str
    right: int
    questions: int


def majority(questions: Sequence[LetterQuestion]) -> Baseline:
    """The baseline that a model must beat to have shown anything."""
    place, right = Counter(q.answer for q in questions).most_common(1)[0]
    return Baseline(chr(ord("A") + place), right, len(questions))
