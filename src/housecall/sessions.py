"""Saved conversations and the lineage of every answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, false, func, or_, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from housecall import erasure
from housecall.database import (
    AnswerRow,
    FeedbackRow,
    MessageRow,
    SessionRow,
    open_database,
    translated,
)
from housecall.errors import NotFound
from housecall.leases import Leases, in_use, is_held
from housecall.records import (
    AnswerRecord,
    BegunTurn,
    ExportedSession,
    Feedback,
    Rating,
    SavedSession,
    SessionInfo,
    Status,
)
from housecall.rows import (
    add_answer,
    add_message,
    add_question,
    check_id,
    columns,
    count_turns,
    get_answer,
    get_session,
    read_messages,
    set_flushing,
    touch,
    with_messages,
)

_TITLE_LENGTH = 60
_TURNS_BEFORE = 3  # of those that left the window are read again: the guard looks back so far


class SessionStore:
    """Conversations and lineage in one database; its methods block and may be called in threads.

    ``owner`` is whose data a method may see; None sees all. Opening raises what ``open_database``
    raises; methods raise NotFound, StoreUnavailable when the database can't be used now, and
    HousecallError when it fails otherwise.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_database(database_url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._sessions = sessionmaker(self._engine)
        self._leases = Leases()
        self._words_left = False
        self._one_writer = threading.Lock()
        self.failing = False
        """Whether the database failed and ``check`` has not found it well again."""

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Find out whether the database can be written: an answer that can't be saved is lost."""
        with self._transaction() as database:
            database.execute(update(SessionRow).where(false()).values(title=""))
        self.failing = False

    def sessions(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        words: str | None = None,
        owner: str | None = None,
    ) -> list[SessionInfo]:
        """The newest sessions first.

        ``before`` is the id of the last one already seen; ``words`` must be in the title or in a
        message.
        """
        turns = select(func.max(MessageRow.turn)).where(MessageRow.session_id == SessionRow.id)
        query = (
            select(SessionRow, func.coalesce(turns.scalar_subquery(), 0))
            .where(SessionRow.deleted_at.is_(None))
            .order_by(SessionRow.updated_at.desc(), SessionRow.id.desc())
            .limit(limit)
        )
        if owner is not None:
            query = query.where(SessionRow.owner == owner)
        if words:
            said = exists().where(
                MessageRow.session_id == SessionRow.id,
                MessageRow.content.icontains(words, autoescape=True),
            )
            query = query.where(or_(SessionRow.title.icontains(words, autoescape=True), said))
        with self._transaction() as database:
            if before is not None:
                seen = get_session(database, before, owner)
                age = tuple_(SessionRow.updated_at, SessionRow.id)
                query = query.where(age < tuple_(seen.updated_at, seen.id))
            return [SessionInfo(**columns(row), turns=n) for row, n in database.execute(query)]

    def session(self, session_id: str, owner: str | None = None) -> SavedSession:
        """One session with its messages."""
        with self._transaction() as database:
            row = get_session(database, session_id, owner)
            return SavedSession(**with_messages(database, row))

    def export(self, session_id: str, owner: str | None = None) -> ExportedSession:
        """One session with all that is saved of it."""
        of_session = AnswerRow.session_id == session_id
        answers = select(AnswerRow).where(of_session).order_by(AnswerRow.turn)
        feedback = select(FeedbackRow).join(AnswerRow).where(of_session).order_by(AnswerRow.turn)
        with self._transaction() as database:
            row = get_session(database, session_id, owner)
            return ExportedSession(
                **with_messages(database, row),
                answers=tuple(map(AnswerRecord.model_validate, database.scalars(answers))),
                feedback=tuple(map(Feedback.model_validate, database.scalars(feedback))),
            )

    def begin_turn(
        self,
        session_id: str,
        message: str,
        *,
        new: bool,
        system: str | None,
        model: str,
        owner: str = "",
    ) -> BegunTurn:
        """Save a user's message in a ``new`` session or one that is there, and take the session.

        It is free again when ``save_answer``, ``withdraw_turn`` or ``release`` says so. ``system``
        None leaves a session the system prompt it has. Raises SessionInUse.
        """
        now = datetime.now(UTC)
        with self._transaction() as database:
            # A write comes first: SQLite then waits for other writers instead of failing.
            if new:
                title = " ".join(message.split())[:_TITLE_LENGTH]
                row = SessionRow(id=session_id, owner=owner, title=title, system=system)
                row.model, row.created_at, row.updated_at = model, now, now
                row.first_turn, row.facts = 1, []
                self._leases.take_new(row)
                database.add(row)
                database.flush()
            else:
                check_id(session_id)
                self._leases.take(database, session_id, owner)
                touch(database, session_id, now, model, system)
                row = database.get_one(SessionRow, session_id, populate_existing=True)
            turn = add_question(database, session_id, message, now)
            messages = read_messages(database, session_id, row.first_turn - _TURNS_BEFORE)
            return BegunTurn(
                turn=turn,
                system=row.system,
                first_turn=row.first_turn,
                facts=tuple(row.facts),
                messages=messages,
            )

    def leave(self, session_id: str, first_turn: int, facts: Sequence[Mapping[str, Any]]) -> None:
        """Save that the turns before ``first_turn`` have left the window, and their facts."""
        with self._transaction() as database:
            values = {"first_turn": first_turn, "facts": list(facts)}
            database.execute(update(SessionRow).where(SessionRow.id == session_id).values(values))

    def save_answer(self, record: AnswerRecord, text: str, status: Status, owner: str = "") -> None:
        """Save an answer's lineage and, of a session, its text; the session is free again."""
        now = datetime.now(UTC)
        session_id, turn = record.session_id, record.turn
        with self._transaction(flush=session_id is not None) as database:
            add_answer(database, record, owner)
            if session_id is not None and turn is not None:
                free = self._leases.free(session_id)
                touch(database, session_id, now, str(record.model["name"]), **free)
                add_message(database, session_id, turn, "assistant", text, status, now, record.id)

    def release(self, session_id: str) -> None:
        """Let others answer a session that ``begin_turn`` took."""
        free = self._leases.free(session_id)
        with self._transaction() as database:
            database.execute(update(SessionRow).where(SessionRow.id == session_id).values(free))

    def withdraw_turn(self, session_id: str, turn: int) -> None:
        """Take back a question that can never be answered, and a session that was begun with it."""
        free = self._leases.free(session_id)
        with self._transaction() as database:
            if turn == 1:
                database.execute(delete(SessionRow).where(SessionRow.id == session_id))
                return
            question = MessageRow.session_id == session_id, MessageRow.turn == turn
            database.execute(delete(MessageRow).where(*question))
            database.execute(update(SessionRow).where(SessionRow.id == session_id).values(free))

    def answer(self, answer_id: str, owner: str | None = None) -> AnswerRecord:
        """The lineage of an answer."""
        with self._transaction() as database:
            return AnswerRecord.model_validate(get_answer(database, answer_id, owner))

    def give_feedback(
        self, answer_id: str, rating: Rating, comment: str, owner: str | None = None
    ) -> Feedback:
        """Save what a user thinks of an answer, in place of what they thought before."""
        now = datetime.now(UTC)
        with self._transaction() as database:
            get_answer(database, answer_id, owner)
            row = FeedbackRow(answer_id=answer_id, rating=rating, comment=comment, created_at=now)
            return Feedback.model_validate(database.merge(row))

    def feedback(self, answer_id: str, owner: str | None = None) -> Feedback:
        """What a user thought of an answer."""
        with self._transaction() as database:
            get_answer(database, answer_id, owner)
            row = database.get(FeedbackRow, answer_id)
            if row is None:
                raise NotFound(f"there is no feedback on the answer {answer_id!r}")
            return Feedback.model_validate(row)

    def rename_session(self, session_id: str, title: str, owner: str | None = None) -> SessionInfo:
        """Give a session another title."""
        with self._transaction() as database:
            row = get_session(database, session_id, owner)
            row.title = title
            return SessionInfo(**columns(row), turns=count_turns(database, session_id))

    def delete_session(self, session_id: str, owner: str | None = None) -> None:
        """Take a session out of sight; ``erase`` erases it. Raises SessionInUse."""
        with self._transaction() as database:
            row = get_session(database, session_id, owner)
            if is_held(row):
                raise in_use(session_id)
            row.deleted_at = datetime.now(UTC)

    def restore_session(self, session_id: str, owner: str | None = None) -> SessionInfo:
        """Take back a deletion, as long as the session was not erased."""
        with self._transaction() as database:
            row = get_session(database, session_id, owner, deleted=True)
            row.deleted_at = None
            return SessionInfo(**columns(row), turns=count_turns(database, session_id))

    def erase(self, undo: timedelta, retention: timedelta | None) -> int:
        """Erase what was deleted longer than ``undo`` ago, and what is older than ``retention``.

        Sessions go with their messages, answers and feedback, and their words leave the disk.
        Returns how many sessions went.
        """
        now = datetime.now(UTC)
        with self._transaction() as database:
            oldest = None if retention is None else now - retention
            erased = erasure.erase(database, now - undo, oldest)
        self._words_left = self._words_left or erased.anything
        if self._words_left:
            with self._translating():
                self._words_left = not erasure.wipe(self._engine)
        return erased.sessions

    def renew(self) -> None:
        """Keep the sessions that are being answered; call it well within ``leases.LEASE``."""
        with self._translating():
            self._leases.renew(self._engine)

    @contextmanager
    def _transaction(self, *, flush: bool = True) -> Iterator[Session]:
        """A transaction of one thread at a time where there is one writer at a time anyhow.

        Threads that wait for SQLite look again now and then, and under load some never get there.
        Without ``flush`` it does not wait for the disk: only a power cut can lose it then.
        """
        alone = self._one_writer if self._is_sqlite else nullcontext()
        with self._translating(), alone, self._sessions.begin() as database:
            if self._is_sqlite:
                set_flushing(database, flush)
            yield database

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            self.failing = True
            raise translated(error) from error
