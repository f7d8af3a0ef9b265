"""Saved conversations and the lineage of every answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from housecall.database import AnswerRow, MessageRow, SessionRow, open_database, reason
from housecall.errors import HousecallError, NotFound

Kind = Literal["generate", "chat", "openai"]
Status = Literal["complete", "cancelled", "error"]

_TITLE_LENGTH = 60


def new_id(prefix: str) -> str:
    """An id that can't be guessed: ``ses_`` and 32 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


class _Record(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class SessionInfo(_Record):
    """A conversation without its messages."""

    id: str
    title: str = Field(description="The beginning of its first message.")
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


class SavedSession(SessionInfo):
    """A conversation with its messages, oldest first."""

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


class SessionStore:
    """Conversations and lineage in one database; its methods block and may be called in threads.

    Opening raises what ``open_database`` raises; methods raise NotFound, and HousecallError when
    the database fails.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_database(database_url)
        self._sessions = sessionmaker(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def sessions(self, *, limit: int = 50, before: str | None = None) -> list[SessionInfo]:
        """The newest sessions first; ``before`` is the id of the last one already seen."""
        turns = select(func.max(MessageRow.turn)).where(MessageRow.session_id == SessionRow.id)
        query = (
            select(SessionRow, func.coalesce(turns.scalar_subquery(), 0))
            .order_by(SessionRow.updated_at.desc(), SessionRow.id.desc())
            .limit(limit)
        )
        with self._transaction() as database:
            if before is not None:
                seen = _get(database, before)
                age = tuple_(SessionRow.updated_at, SessionRow.id)
                query = query.where(age < tuple_(seen.updated_at, seen.id))
            return [SessionInfo(**_columns(row), turns=n) for row, n in database.execute(query)]

    def session(self, session_id: str) -> SavedSession:
        """One session with its messages."""
        query = (
            select(MessageRow)
            .where(MessageRow.session_id == session_id)
            .order_by(MessageRow.turn, MessageRow.id)
        )
        with self._transaction() as database:
            row = _get(database, session_id)
            messages = tuple(map(SavedMessage.model_validate, database.scalars(query)))
            turns = messages[-1].turn if messages else 0
            return SavedSession(**_columns(row), turns=turns, messages=messages)

    def begin_turn(
        self, session_id: str, message: str, *, new: bool, system: str | None, model: str
    ) -> int:
        """Save a user's message in a ``new`` session or one that is there; returns its turn.

        ``system`` None leaves a session the system prompt it has.
        """
        now = datetime.now(UTC)
        with self._transaction() as database:
            # A write comes first: SQLite then waits for other writers instead of failing.
            if new:
                title = " ".join(message.split())[:_TITLE_LENGTH]
                row = SessionRow(id=session_id, title=title, system=system, model=model)
                row.created_at = row.updated_at = now
                database.add(row)
                database.flush()
            else:
                _touch(database, session_id, now, model, system)
            last = select(func.max(MessageRow.turn)).where(MessageRow.session_id == session_id)
            turn = (database.scalar(last) or 0) + 1
            _add_message(database, session_id, turn, "user", message, "complete", now)
            return turn

    def save_answer(self, record: AnswerRecord, text: str, status: Status) -> None:
        """Save an answer's lineage and, where it belongs to a session, its text."""
        now = datetime.now(UTC)
        session_id, turn = record.session_id, record.turn
        with self._transaction() as database:
            database.add(AnswerRow(**record.model_dump()))
            if session_id is not None and turn is not None:
                _touch(database, session_id, now, str(record.model["name"]))
                _add_message(database, session_id, turn, "assistant", text, status, now, record.id)

    def answer(self, answer_id: str) -> AnswerRecord:
        """The lineage of an answer."""
        with self._transaction() as database:
            row = database.get(AnswerRow, answer_id)
            if row is None:
                raise NotFound(f"there is no answer {answer_id!r}")
            return AnswerRecord.model_validate(row)

    def delete_session(self, session_id: str) -> None:
        """Delete a session, its messages and the lineage of its answers, for good."""
        with self._transaction() as database:
            database.delete(_get(database, session_id))
        if self._engine.dialect.name == "sqlite":
            # The write-ahead log still has the words until it is emptied.
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self._sessions.begin() as database:
                yield database
        except SQLAlchemyError as error:
            raise HousecallError(f"the database failed: {reason(error)}") from error


def _get(database: Session, session_id: str) -> SessionRow:
    row = database.get(SessionRow, session_id)
    if row is None:
        raise NotFound(f"there is no session {session_id!r}")
    return row


def _touch(
    database: Session, session_id: str, now: datetime, model: str, system: str | None = None
) -> None:
    values = {"updated_at": now, "model": model} | ({"system": system} if system else {})
    database.execute(update(SessionRow).where(SessionRow.id == session_id).values(**values))


def _add_message(
    database: Session,
    session_id: str,
    turn: int,
    role: str,
    content: str,
    status: Status,
    now: datetime,
    answer_id: str | None = None,
) -> None:
    row = MessageRow(session_id=session_id, turn=turn, role=role, content=content, status=status)
    row.created_at, row.answer_id = now, answer_id
    database.add(row)


def _columns(row: SessionRow) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in SessionRow.__table__.columns}
