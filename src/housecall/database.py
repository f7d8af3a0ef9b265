"""The tables, and how a database is opened: brought to this version, private, safe to share."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from housecall import migrations
from housecall.errors import ConfigError, HousecallError, MissingPackage, StoreUnavailable

_BUSY_MILLISECONDS = 20_000  # for other processes: threads of this one wait for each other
_RETRY_SECONDS = 0.01


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone, which is UTC: SQLite would forget it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def _keepable(value: str | None, dialect: Dialect) -> str | None:
    """PostgreSQL can't keep NUL in a text, so there U+FFFD stands for it."""
    return value.replace("\0", "\ufffd") if value and dialect.name == "postgresql" else value


class Words(TypeDecorator[str]):
    """Text as people write it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what can't be kept."""
        return _keepable(value, dialect)


class ShortWords(TypeDecorator[str]):
    """Words up to a length."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what can't be kept."""
        return _keepable(value, dialect)


class Base(DeclarativeBase):
    """All tables; ``migrations`` makes them."""

    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


class SessionRow(Base):
    """A conversation."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_updated_at", "updated_at", "id"),
        Index("ix_sessions_owner", "owner", "updated_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), server_default="")
    title: Mapped[str] = mapped_column(ShortWords(80))
    system: Mapped[str | None] = mapped_column(Words)
    model: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    first_turn: Mapped[int] = mapped_column(server_default="1")
    facts: Mapped[list[Any]] = mapped_column(server_default="[]")
    holder: Mapped[str | None] = mapped_column(String(120))
    held_until: Mapped[datetime | None]


class MessageRow(Base):
    """A user's message or the answer to it; both have the same ``turn``."""

    __tablename__ = "messages"
    __table_args__ = (UniqueConstraint("session_id", "turn", "role", name="uq_messages_turn"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    turn: Mapped[int]
    role: Mapped[str] = mapped_column(String(10))
    content: Mapped[str] = mapped_column(Words)
    status: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime]
    answer_id: Mapped[str | None] = mapped_column(String(40))


class AnswerRow(Base):
    """The lineage of an answer."""

    __tablename__ = "answers"
    __table_args__ = (
        Index("ix_answers_session_id", "session_id"),
        Index("ix_answers_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), server_default="")
    request_id: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(10))
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    turn: Mapped[int | None]
    created_at: Mapped[datetime]
    finish_reason: Mapped[str | None] = mapped_column(String(20))
    text_sha256: Mapped[str] = mapped_column(String(64))
    model: Mapped[dict[str, Any]]
    lineage: Mapped[list[Any]]
    guard: Mapped[dict[str, Any]]
    guard_version: Mapped[str] = mapped_column(String(100))
    sampling: Mapped[dict[str, Any]]
    usage: Mapped[dict[str, Any]]
    timings: Mapped[dict[str, Any]]
    context: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class FeedbackRow(Base):
    """What a user thought of an answer."""

    __tablename__ = "feedback"

    answer_id: Mapped[str] = mapped_column(
        ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True
    )
    rating: Mapped[str] = mapped_column(String(10))
    comment: Mapped[str] = mapped_column(Words)
    created_at: Mapped[datetime]


def open_database(database_url: str) -> Engine:
    """Open a database and bring it to this version.

    Raises ConfigError when it can't be opened or is of a newer Housecall, and MissingPackage
    when its driver is not installed.
    """
    try:
        url = make_url(database_url)
        # A server's connections may have died since they were used last; a file's can't.
        engine = create_engine(
            url, hide_parameters=True, pool_pre_ping=url.get_backend_name() != "sqlite"
        )
    except ArgumentError:
        raise ConfigError("setting database_url: write it as sqlite:////path/to/file.db") from None
    except ModuleNotFoundError as error:
        package = str(error.name)
        raise MissingPackage(f"this database_url needs the package {package}", package) from None
    try:
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
            if url.database:
                _create_privately(Path(url.database))
                _stay_with(engine, Path(url.database))
        migrations.upgrade(engine)
    except (OSError, SQLAlchemyError) as error:
        engine.dispose()
        name = url.render_as_string()
        raise ConfigError(f"{name}: can't be opened as a database: {reason(error)}") from error
    except ConfigError:
        engine.dispose()
        raise
    return engine


def translated(error: SQLAlchemyError) -> HousecallError:
    """Housecall's error: whether it may go away by itself, and the driver's own words."""
    message = f"the database failed: {reason(error)}"
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeout)):
        return StoreUnavailable(message)
    return HousecallError(message)


def reason(error: Exception) -> str:
    """The driver's own words in one line: SQLAlchemy's would repeat the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())


def _create_privately(file: Path) -> None:
    """Conversations about health are for nobody else on the machine to read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _stay_with(engine: Engine, file: Path) -> None:
    """Refuse to go on with a file that has gone or was replaced: what is written would be lost.

    SQLite would make an empty database in its place, and open connections would go on writing to
    the one that nobody can find any more.
    """

    def identity() -> tuple[int, int] | None:
        try:
            found = file.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def connecting(*_: Any) -> None:
        if identity() is None:
            raise sqlite3.OperationalError(f"the file {file.name} has gone")

    def connected(_: Any, record: Any) -> None:
        record.info["file"] = identity()

    def taken(_: Any, record: Any, __: Any) -> None:
        if record.info["file"] != identity():
            raise DisconnectionError("the file was replaced")

    event.listen(engine, "do_connect", connecting)
    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", taken)


def _configure_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}").close()
    _use_write_ahead_log(connection)
    for pragma in ("foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Readers don't wait for a writer then.

    SQLite itself doesn't wait here: it asks for the write lock while it holds a read lock, where
    two that waited could wait for each other, so it fails at once while another process makes
    the same change.
    """
    give_up = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # or a kind of it
            if not busy or time.monotonic() > give_up:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
