"""Who is answering a session: a lock in the database that outlives no process for long.

A process writes its name into the session's row together with the question, and takes it out
together with the answer. A name whose process is gone counts for nothing: on the same machine at
once, elsewhere when its time has run out (``renew`` puts that off while an answer is made).
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import psutil
from sqlalchemy import ColumnElement, Engine, or_, update
from sqlalchemy.orm import Session

from housecall.database import SessionRow
from housecall.errors import NotFound, SessionInUse

LEASE = timedelta(seconds=60)
_SAME_BIRTH = 2  # seconds that the clock may have been set by


class Leases:
    """The sessions that this process is answering."""

    def __init__(self) -> None:
        self._name = f"{_machine()}/{os.getpid()}/{_born(os.getpid())}/{secrets.token_hex(4)}"
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def take(self, database: Session, session_id: str, owner: str | None) -> None:
        """Take a session, as the first write of a transaction.

        Raises NotFound and SessionInUse.
        """
        free = or_(SessionRow.holder.is_(None), SessionRow.held_until < datetime.now(UTC))
        if not self._try(database, session_id, owner, free):
            row = database.get(SessionRow, session_id)
            if row is None or row.deleted_at or owner not in (None, row.owner):
                raise NotFound(f"there is no session {session_id!r}")
            left_behind = row.holder is not None and _is_gone(row.holder)
            same = SessionRow.holder == row.holder
            if not left_behind or not self._try(database, session_id, owner, same):
                raise in_use(session_id)

    def take_new(self, row: SessionRow) -> None:
        """Take a session that nobody else knows of yet."""
        row.holder, row.held_until = self._name, datetime.now(UTC) + LEASE
        self._note(row.id)

    def free(self, session_id: str) -> dict[str, None]:
        """The columns of a session that is free again."""
        with self._lock:
            self._held.discard(session_id)
        return {"holder": None, "held_until": None}

    def renew(self, engine: Engine) -> None:
        """Put off the end of all leases that this process holds."""
        with self._lock:
            held = list(self._held)
        if held:
            with engine.begin() as connection:
                connection.execute(
                    update(SessionRow)
                    .where(SessionRow.id.in_(held), SessionRow.holder == self._name)
                    .values(held_until=datetime.now(UTC) + LEASE)
                )

    def _try(
        self, database: Session, session_id: str, owner: str | None, free: ColumnElement[bool]
    ) -> bool:
        query = update(SessionRow).where(
            SessionRow.id == session_id, SessionRow.deleted_at.is_(None), free
        )
        if owner is not None:
            query = query.where(SessionRow.owner == owner)
        values = {"holder": self._name, "held_until": datetime.now(UTC) + LEASE}
        done: Any = database.execute(
            query.values(values).execution_options(synchronize_session=False)
        )
        if done.rowcount:
            self._note(session_id)
        return bool(done.rowcount)

    def _note(self, session_id: str) -> None:
        with self._lock:
            self._held.add(session_id)


def in_use(session_id: str) -> SessionInUse:
    """The error for a session that is being answered."""
    return SessionInUse(
        f"session {session_id!r} is being answered: wait for that answer, or cancel it"
    )


def is_held(row: SessionRow) -> bool:
    """Whether somebody is answering a session."""
    if row.holder is None or row.held_until is None or row.held_until < datetime.now(UTC):
        return False
    return not _is_gone(row.holder)


def _is_gone(holder: str) -> bool:
    """Whether the process of that name has ended; one of another machine may well be there."""
    machine, pid, born, _ = holder.split("/")
    if machine != _machine():
        return False
    found = _born(int(pid))
    return found is None or abs(found - int(born)) > _SAME_BIRTH


def _born(pid: int) -> int | None:
    """When a process began, in seconds since 1970: ids are used again."""
    try:
        return int(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


@cache
def _machine() -> str:
    return socket.gethostname().replace("/", "-")[:40]
