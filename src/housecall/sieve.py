"""One row after the other: mended, masked, and kept or rejected with a reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from housecall.cleaning import check_shape, clean
from housecall.config import DataConfig
from housecall.privacy import find_personal, mask
from housecall.sources import BadRow, Row
from housecall.types import Message

Messages = tuple[Message, ...]
# Line ends to str.splitlines and to editors, but not to JSON.
_LINE_ENDS = str.maketrans({c: f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"})


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that can be trained on, as it will be."""

    number: int
    messages: Messages
    tokens: int

    def text(self, role: str) -> str:
        """All that one role says."""
        return "\n".join(m.content for m in self.messages if m.role == role)

    def line(self) -> str:
        """The row as it stands in a split's file."""
        return as_line({"row": self.number, "messages": _plain(self.messages)})


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that can't: the rule that says so, what it says of this row, and the row as read."""

    number: int
    reason: str
    detail: str | None = None
    messages: Messages | None = None
    text: str | None = None

    def line(self) -> str:
        """The row as it stands in ``rejected.jsonl``."""
        row: dict[str, Any] = {"row": self.number, "reason": self.reason}
        if self.detail:
            row["detail"] = self.detail
        if self.messages is not None:
            row["messages"] = _plain(self.messages)
        if self.text is not None:
            row["text"] = self.text
        return as_line(row)


class Sieve:
    """Judges rows, and counts what was mended and masked on the way."""

    def __init__(self, config: DataConfig, count_tokens: Callable[[Messages], int]) -> None:
        self._config = config
        self._count_tokens = count_tokens
        self._seen: dict[bytes, int] = {}
        self.mended: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()

    def sift(self, row: Row | BadRow) -> Kept | Rejected:
        """Judge the next row."""
        if isinstance(row, BadRow):
            text = self._mask_text(row.text, Counter())
            return Rejected(row.number, row.reason, row.detail or None, text=text)
        messages = _with_prompt(row.messages, self._config.system_prompt)
        judged = self._judge(row.number, messages)
        if isinstance(judged, Rejected):
            return judged
        tokens = self._count_tokens(judged)
        if tokens > self._config.max_tokens:
            reason = f"longer than data.max_tokens ({self._config.max_tokens})"
            return self._rejected(row.number, reason, messages, f"{tokens} tokens")
        return Kept(row.number, judged, tokens)

    def _judge(self, number: int, messages: Messages) -> Messages | Rejected:
        fault = check_shape(messages)
        if fault is not None:
            return self._rejected(number, fault, messages)
        mended = messages
        if self._config.clean:
            cleaned = clean(messages)
            self.mended.update(cleaned.mended)
            if cleaned.fault is not None:
                return self._rejected(number, cleaned.fault, messages)
            mended = cleaned.messages
        if self._config.mask_personal_data:
            mended = self._mask(mended, self.masked)
        earlier = self._seen.setdefault(_digest(mended), number)
        if earlier != number:
            reason = "the same as an earlier row"
            return self._rejected(number, reason, messages, f"row {earlier}")
        return mended

    def _rejected(
        self, number: int, reason: str, messages: Messages, detail: str | None = None
    ) -> Rejected:
        """Rejected rows keep their text as it was read, but for personal data: runs are shared."""
        return Rejected(number, reason, detail, self._mask(messages, Counter()))

    def _mask(self, messages: Messages, counts: Counter[str]) -> Messages:
        return tuple(Message(m.role, self._mask_text(m.content, counts)) for m in messages)

    def _mask_text(self, text: str, counts: Counter[str]) -> str:
        if not self._config.mask_personal_data:
            return text
        places = find_personal(text)
        counts.update(place.kind for place in places)
        return mask(text, places)


def as_line(row: dict[str, Any]) -> str:
    """One line of a .jsonl file, also of a text that is not whole Unicode."""
    line = json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # half characters: bytes that were not UTF-8
        line = json.dumps(row)
    return line + "\n"


def _with_prompt(messages: Sequence[Message], system_prompt: str | None) -> Messages:
    """Outer white space off; the recipe's system prompt in the place of the row's own."""
    tidy = [Message(m.role, m.content.strip()) for m in messages]
    if system_prompt is not None:
        tidy = [Message("system", system_prompt), *(m for m in tidy if m.role != "system")]
    return tuple(m for m in tidy if m.role != "system" or m.content)


def _digest(messages: Messages) -> bytes:
    """What is the same in two rows that say the same."""
    spoken = [m.content for m in messages if m.role != "system"]
    return hashlib.blake2b(json.dumps(spoken).encode(), digest_size=16).digest()


def _plain(messages: Messages) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]
