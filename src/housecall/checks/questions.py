"""Multiple-choice questions: read, laid out for the model, scored.

The model is asked the question as a user would ask it, and each option is taken as its answer:
the one that it finds likeliest for its length is its choice (log-likelihood per byte, the
``acc_norm`` of EleutherAI's lm-evaluation-harness). Small models can't name letters, but they can
tell likely sentences from unlikely ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from housecall.chat_template import IGNORE, ChatTemplate, Tokenizer, encode_for_training
from housecall.errors import DataError
from housecall.types import Message

BUILTIN = "builtin:health-literacy"
_FILE = "health_literacy.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its options, of which ``answer`` (from 0) is right."""

    text: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A question once, and behind it all its options, none of which sees another."""

    ids: list[int]
    prefix: int
    spans: list[tuple[int, int]]
    sizes: list[int]
    answer: int


def read_questions(source: str, limit: int | None) -> list[Question]:
    """The first ``limit`` questions of ``builtin:health-literacy`` or a .jsonl or .json file.

    A question is an object with ``question``, ``options`` (a list, or an object by letter) and
    ``answer`` (the letter, or the option's text). Raises DataError naming the file and the line.
    """
    where = f"gate.questions {source}"
    found: list[Question] = []
    if source == BUILTIN:
        text = (resources.files("housecall") / "data" / _FILE).read_text("utf-8")
    else:
        text = _read(Path(source).expanduser(), where)
    for number, raw in enumerate(_rows(text, where), start=1):
        if limit is not None and len(found) == limit:
            break
        try:
            found.append(_question(raw))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{where}: question {number}: {reason}: give question, options and answer"
            ) from error
    if not found:
        raise DataError(f"{where}: holds no question")
    return found


def _read(path: Path, where: str) -> str:
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{where}: give {BUILTIN}, or a file that ends in .jsonl or .json")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"{where}: can't be read: {reason}") from error


def _rows(text: str, where: str) -> Iterator[Any]:
    try:
        if text.lstrip().startswith("["):
            yield from json.loads(text)
            return
        for line in filter(str.strip, text.splitlines()):
            yield json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error


def _question(raw: Any) -> Question:
    given = raw["options"]
    letters = list(given) if isinstance(given, Mapping) else None
    options = [str(o) for o in (given.values() if isinstance(given, Mapping) else given)]
    names = letters or [chr(ord("A") + i) for i in range(len(options))]
    answer = raw["answer"]
    if len(set(options)) < 2 or not all(map(str.strip, options)):
        raise ValueError("needs two or more different options, none of them empty")
    place = names.index(answer) if answer in names else options.index(answer)
    # Public sets repeat an option here and there. Equal ones are equally likely, and the first is
    # then the choice: so it is the answer too.
    place = options.index(options[place])
    return Question(str(raw["question"]), tuple(options), place)


def lay_out(
    questions: Sequence[Question], system: str | None, template: ChatTemplate, tokenizer: Tokenizer
) -> list[LaidOut]:
    """Token ids of all questions, behind the system prompt that the model is served with."""
    before = [Message("system", system)] if system else []
    found = []
    for question in questions:
        asked = [*before, Message("user", question.text)]
        encoded = [
            encode_for_training(template.segments([*asked, Message("assistant", o)]), tokenizer, ())
            for o in question.options
        ]
        prefix = next(i for i, label in enumerate(encoded[0].labels) if label != IGNORE)
        ids, spans = encoded[0].ids[:prefix], []
        for row in encoded:
            option = [label for label in row.labels if label != IGNORE]
            spans.append((len(ids), len(ids) + len(option)))
            ids = ids + option
        sizes = [len(option.encode()) for option in question.options]
        found.append(LaidOut(ids, prefix, spans, sizes, question.answer))
    return found


@torch.no_grad()
def choices(model: Any, questions: Sequence[LaidOut]) -> list[int]:
    """The option of each question that the model finds likeliest (a batch at a time)."""
    device = next(model.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device
    length = max(len(q.ids) for q in questions)
    ids = torch.zeros(len(questions), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    # Every place sees itself, so that no row of the mask is empty.
    mask = torch.eye(length, dtype=torch.bool).repeat(len(questions), 1, 1)
    for i, question in enumerate(questions):
        ids[i, : len(question.ids)] = torch.tensor(question.ids)
        positions[i, : question.prefix] = torch.arange(question.prefix)
        mask[i, : len(question.ids), : question.prefix] = True
        for start, end in question.spans:
            positions[i, start:end] = question.prefix + torch.arange(end - start)
            mask[i, start:end, start:end] = True
        mask[i] &= torch.ones(length, length, dtype=torch.bool).tril()
    hidden = model.model(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=mask[:, None].to(device),
        use_cache=False,
    )[0]
    return [_choice(model, hidden[i], question) for i, question in enumerate(questions)]


def _choice(model: Any, hidden: torch.Tensor, question: LaidOut) -> int:
    """The option with the largest log-likelihood per byte."""
    # A token is foretold by the one before it; the first of each option by the question's last.
    places = [
        place
        for start, end in question.spans
        for place in (question.prefix - 1, *range(start, end - 1))
    ]
    targets = torch.tensor(question.ids[question.prefix :], device=hidden.device)
    logits = model.lm_head(hidden[places]).float()
    scores = logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
    sums = [part.sum() for part in scores.split([end - start for start, end in question.spans])]
    likelihoods = [float(s) / size for s, size in zip(sums, question.sizes, strict=True)]
    return max(range(len(likelihoods)), key=likelihoods.__getitem__)
