"""Erasing what was deleted or is too old, so that its words leave the disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, and_, delete, or_
from sqlalchemy.orm import Session

from housecall.database import AnswerRow, SessionRow


class Erased(NamedTuple):
    """How many rows went; what belongs to a session goes with it and is not counted."""

    sessions: int
    answers: int

    @property
    def anything(self) -> bool:
        """Whether there are words to wipe."""
        return self.sessions + self.answers > 0


def erase(database: Session, deleted_before: datetime, last_used_before: datetime | None) -> Erased:
    """Delete sessions that were deleted or last used before those times, and answers as old.

    A session that is being answered stays.
    """
    free = or_(SessionRow.holder.is_(None), SessionRow.held_until < datetime.now(UTC))
    too_old = [SessionRow.deleted_at <= deleted_before]
    answers = 0
    if last_used_before is not None:
        too_old.append(SessionRow.updated_at < last_used_before)
        alone = and_(AnswerRow.session_id.is_(None), AnswerRow.created_at < last_used_before)
        answers = _count(database.execute(delete(AnswerRow).where(alone)))
    sessions = _count(database.execute(delete(SessionRow).where(or_(*too_old), free)))
    return Erased(sessions, answers)


def wipe(engine: Engine) -> bool:
    """Take deleted rows off the disk; False when readers were in the way: try again later.

    SQLite overwrites them (``secure_delete``), but its write-ahead log has the words until it is
    emptied. PostgreSQL keeps dead rows until a VACUUM, and its own log and backups for as long as
    its administrator says.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            return not busy
        connection.exec_driver_sql("VACUUM sessions, messages, answers, feedback")
        return True


def _count(result: Any) -> int:
    return int(result.rowcount)
