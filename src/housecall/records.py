"""What is saved of conversations and answers, as it is read back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["generate", "chat", "openai"]
Status = Literal["complete", "cancelled", "error"]
Rating = Literal["up", "down"]


def new_id(prefix: str) -> str:
    """An id that can't be guessed: ``ses_`` and 32 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


class _Record(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class SessionInfo(_Record):
    """A conversation without its messages."""

    id: str
    title: str = Field(description="The beginning of its first message, until it is renamed.")
    system: str | None = Field(description="The system prompt it was given, if any.")
    model: str = Field(description="Name of the model that answered last.")
    created_at: datetime
    updated_at: datetime
    turns: int = Field(description="How many messages of the user it has.")


class SavedMessage(_Record):
    """One message of a conversation."""

    turn: int = Field(description="From 1; an answer has the turn of its question.")
    role: Literal["user", "assistant"]
    content: str
    status: Status = Field(description="`cancelled` and `error` mark an answer that was cut off.")
    created_at: datetime
    answer_id: str | None = Field(description="Of an answer: its lineage is at /answers/{id}.")


class PinnedFact(_Record):
    """A fact that stays before the model although its turn has left the window."""

    text: str
    turn: int


class SavedSession(SessionInfo):
    """A conversation with its messages, oldest first."""

    first_turn: int = Field(description="The oldest turn that is still in the model's window.")
    pinned: tuple[PinnedFact, ...] = Field(description="Facts drawn from the turns before that.")
    messages: tuple[SavedMessage, ...]


class AnswerRecord(_Record):
    """What stands behind one answer: model, data, checks and settings. Never its text."""

    id: str
    request_id: str
    kind: Kind
    session_id: str | None
    turn: int | None
    created_at: datetime
    finish_reason: str | None = Field(description="None when the engine failed midway.")
    text_sha256: str = Field(description="SHA-256 of the answer's text in UTF-8.")
    model: Mapping[str, Any]
    lineage: tuple[Mapping[str, Any], ...] = Field(
        description="From the model that answered to the data set, with the hash of each."
    )
    guard: Mapping[str, Any] = Field(description="What the guard found, without the words.")
    guard_version: str
    sampling: Mapping[str, Any]
    usage: Mapping[str, Any]
    timings: Mapping[str, Any]
    context: Mapping[str, Any] | None = Field(description="None when no model was asked.")


class Feedback(_Record):
    """What a user thought of an answer."""

    answer_id: str
    rating: Rating
    comment: str
    created_at: datetime


class ExportedSession(SavedSession):
    """A conversation with all that is saved of it."""

    answers: tuple[AnswerRecord, ...]
    feedback: tuple[Feedback, ...]


class BegunTurn(_Record):
    """A turn that was saved and waits for its answer, and what its session holds.

    ``messages`` are those from a few turns before ``first_turn`` up to and with the new one.
    """

    turn: int
    system: str | None
    first_turn: int
    facts: tuple[Mapping[str, Any], ...]
    messages: tuple[SavedMessage, ...]
