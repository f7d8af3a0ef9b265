"""Reading and writing single rows of conversations, inside a transaction."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from housecall.database import AnswerRow, MessageRow, SessionRow
from housecall.errors import NotFound
from housecall.records import AnswerRecord, SavedMessage, Status

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


def check_id(session_id: str) -> None:
    """Refuse what no id looks like before a database sees it."""
    if not _ID.fullmatch(session_id):
        raise NotFound(f"there is no session {session_id!r}")


def set_flushing(database: Session, flush: bool) -> None:
    """Say, before a transaction of SQLite writes, whether its end waits for the disk."""
    level = "FULL" if flush else "NORMAL"
    database.connection().exec_driver_sql(f"PRAGMA synchronous = {level}")


def get_session(
    database: Session, session_id: str, owner: str | None, *, deleted: bool = False
) -> SessionRow:
    """A session that ``owner`` may see; None sees all. Raises NotFound."""
    check_id(session_id)
    row = database.get(SessionRow, session_id)
    if row is None or (row.deleted_at is not None) != deleted or owner not in (None, row.owner):
        raise NotFound(f"there is no {'deleted ' if deleted else ''}session {session_id!r}")
    return row


def get_answer(database: Session, answer_id: str, owner: str | None) -> AnswerRow:
    """An answer that ``owner`` may see and whose session is not deleted. Raises NotFound."""
    row = database.get(AnswerRow, answer_id) if _ID.fullmatch(answer_id) else None
    session = database.get(SessionRow, row.session_id) if row and row.session_id else None
    hidden = session is not None and session.deleted_at is not None
    if row is None or hidden or owner not in (None, row.owner):
        raise NotFound(f"there is no answer {answer_id!r}")
    return row


def count_turns(database: Session, session_id: str) -> int:
    """The number of the newest turn."""
    last = select(func.max(MessageRow.turn)).where(MessageRow.session_id == session_id)
    return database.scalar(last) or 0


def read_messages(database: Session, session_id: str, first: int = 0) -> tuple[SavedMessage, ...]:
    """The messages from turn ``first`` on, oldest first."""
    query = (
        select(MessageRow)
        .where(MessageRow.session_id == session_id, MessageRow.turn >= first)
        .order_by(MessageRow.turn, MessageRow.id)
    )
    return tuple(map(SavedMessage.model_validate, database.scalars(query)))


def with_messages(database: Session, row: SessionRow) -> dict[str, Any]:
    """All of a session."""
    messages = read_messages(database, row.id)
    turns = messages[-1].turn if messages else 0
    return columns(row) | {"messages": messages, "turns": turns, "pinned": row.facts}


def touch(
    database: Session,
    session_id: str,
    now: datetime,
    model: str,
    system: str | None = None,
    **others: Any,
) -> None:
    """Write what changes with every message; ``system`` None leaves the one that is there."""
    values = {"updated_at": now, "model": model, **others}
    values |= {"system": system} if system else {}
    database.execute(update(SessionRow).where(SessionRow.id == session_id).values(**values))


def add_message(
    database: Session,
    session_id: str,
    turn: int,
    role: str,
    content: str,
    status: Status,
    now: datetime,
    answer_id: str | None = None,
) -> None:
    """Write one message."""
    row = MessageRow(session_id=session_id, turn=turn, role=role, content=content, status=status)
    row.created_at, row.answer_id = now, answer_id
    database.add(row)
    database.flush()


def add_question(database: Session, session_id: str, message: str, now: datetime) -> int:
    """Write a question and give its turn; one that was never answered, sent again, is the same."""
    last = select(MessageRow).where(MessageRow.session_id == session_id)
    newest = database.scalar(last.order_by(MessageRow.turn.desc(), MessageRow.id.desc()).limit(1))
    if newest is not None and (newest.role, newest.content) == ("user", message):
        return newest.turn
    turn = 1 if newest is None else newest.turn + 1
    add_message(database, session_id, turn, "user", message, "complete", now)
    return turn


def add_answer(database: Session, record: AnswerRecord, owner: str) -> None:
    """Write the lineage of an answer; as a plain row, for nothing of it is read again."""
    values = {**record.model_dump(), "owner": owner}
    database.execute(insert(AnswerRow.__table__), values)  # type: ignore[arg-type]


def columns(row: SessionRow) -> dict[str, Any]:
    """A session without its messages."""
    return {column.key: getattr(row, column.key) for column in SessionRow.__table__.columns}
