"""prepare: a data set into train, validation and test files that training can trust.

Rows that can't be used go to ``rejected.jsonl`` with the reason; nothing disappears silently.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, Draft, create
from housecall.chat_template import ChatTemplate, encode
from housecall.config import DataConfig
from housecall.errors import DataError
from housecall.progress import bar
from housecall.sources import BadRow, Row, read_rows, source_hash, source_name
from housecall.steps.base import HfTokenizer, load_template
from housecall.types import Message

SPLITS = ("train", "validation", "test")
_LICENCES = {"builtin:starter": "Apache-2.0, written for demonstration, not reviewed by clinicians"}
_SMALLEST = 10


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A row that stays."""

    number: int
    messages: tuple[Message, ...]
    tokens: int

    def line(self) -> str:
        """The row as it stands in a split's file."""
        messages = [{"role": m.role, "content": m.content} for m in self.messages]
        return json.dumps({"row": self.number, "messages": messages}, ensure_ascii=False)


def run(config: DataConfig, base: Artifact, out: Path) -> Artifact:
    """Read, check and split the data set for the tokenizer of ``base``.

    Raises DataError when the source can't be read or too few rows are left.
    """
    tokenizer = HfTokenizer(base.path)
    template = load_template(base.path, tokenizer)
    with create(
        out, "dataset", config=config.model_dump(mode="json"), parents=[base], seed=config.seed
    ) as draft:
        kept, rejected = _keep(config, tokenizer, template)
        if len(kept) < _SMALLEST:
            why = ", ".join(f"{n} {reason}" for reason, n in _reasons(rejected).items())
            raise DataError(
                f"data.source {config.source}: {len(kept)} rows can be used, {_SMALLEST} are "
                f"needed ({why or 'the source is empty'})"
            )
        splits = _split(kept, config)
        _write(draft, splits, rejected)
        licence = config.licence or _LICENCES.get(config.source, "not stated")
        draft.licences["data"] = {"source": source_name(config), "licence": licence}
        draft.metrics |= {
            "source": source_name(config),
            "source_sha256": source_hash(config),
            "system_prompt": _system_prompt(kept),
            "rows": {name: len(rows) for name, rows in splits.items()},
            "tokens": {name: sum(r.tokens for r in rows) for name, rows in splits.items()},
            "several_turns": sum(_turns(d) > 1 for d in kept),
            "rejected": _reasons(rejected),
        }
    return Artifact.load(out, verify=False)


def _keep(
    config: DataConfig, tokenizer: HfTokenizer, template: ChatTemplate
) -> tuple[list[Dialogue], list[dict[str, Any]]]:
    kept: list[Dialogue] = []
    rejected: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    with bar("prepare", config.limit or 1000) as progress:
        for row in read_rows(config):
            progress.advance()
            messages = () if isinstance(row, BadRow) else _tidy(row, config.system_prompt)
            spoken = tuple(m.content for m in messages if m.role != "system")
            tokens = 0
            if isinstance(row, BadRow):
                reason: str | None = row.reason
            else:
                reason = _fault(messages)
            if reason is None and spoken in seen:
                reason = "the same as an earlier row"
            if reason is None:
                tokens = len(encode(template.segments(messages), tokenizer))
                if tokens > config.max_tokens:
                    reason = f"longer than data.max_tokens ({config.max_tokens})"
            if reason is None:
                seen.add(spoken)
                kept.append(Dialogue(row.number, messages, tokens))
            else:
                texts = [{"role": m.role, "content": m.content} for m in messages]
                rejected.append({"row": row.number, "reason": reason, "messages": texts})
    return kept, rejected


def _tidy(row: Row, system_prompt: str | None) -> tuple[Message, ...]:
    """Outer white space off; the recipe's system prompt in the place of the row's own."""
    messages = [Message(m.role, m.content.strip()) for m in row.messages]
    if system_prompt is not None:
        spoken = [m for m in messages if m.role != "system"]
        messages = [Message("system", system_prompt), *spoken]
    return tuple(m for m in messages if m.role != "system" or m.content)


def _fault(messages: Sequence[Message]) -> str | None:
    """Why a dialogue can't be trained on, or None."""
    roles = [m.role for m in messages if m.role != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        return "turns do not alternate between user and assistant"
    if any(m.role == "system" for m in messages[1:]):
        return "a system message that is not the first"
    if not all(m.content for m in messages):
        return "an empty turn"
    if any("\x00" in m.content or "\ufffd" in m.content for m in messages):
        return "broken characters"
    return None


def _split(kept: Sequence[Dialogue], config: DataConfig) -> dict[str, list[Dialogue]]:
    """Shuffled by the seed; validation and test get ``held_out`` each, train the rest."""
    rows = list(kept)
    random.Random(config.seed).shuffle(rows)
    size = max(1, round(len(rows) * config.held_out))
    parts = (rows[2 * size :], rows[:size], rows[size : 2 * size])
    return dict(zip(SPLITS, parts, strict=True))


def _write(
    draft: Draft, splits: dict[str, list[Dialogue]], rejected: Iterable[dict[str, Any]]
) -> None:
    for name, rows in splits.items():
        _write_lines(draft.path / f"{name}.jsonl", (row.line() for row in rows))
    lines = (json.dumps(row, ensure_ascii=False) for row in rejected)
    _write_lines(draft.path / "rejected.jsonl", lines)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _reasons(rejected: Iterable[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(str(row["reason"]) for row in rejected)
    return dict(counts.most_common())


def _system_prompt(kept: Sequence[Dialogue]) -> str | None:
    """What most rows start with: the model has learned to answer behind it."""
    first = (d.messages[0] for d in kept)
    counts = Counter(m.content if m.role == "system" else None for m in first)
    return counts.most_common(1)[0][0]


def _turns(dialogue: Dialogue) -> int:
    return sum(m.role == "user" for m in dialogue.messages)
