"""The tables, and how a database is opened: brought to this version, private, safe to share."""

from __future__ import annotations

import os
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
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from housecall import migrations
from housecall.errors import ConfigError, MissingPackage

_BUSY_MILLISECONDS = 5000


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone, which is UTC: SQLite would forget it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """All tables; ``migrations`` makes them."""

    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


class SessionRow(Base):
    """A conversation."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_updated_at", "updated_at", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    title: Mapped[str] = mapped_column(String(80))
    system: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class MessageRow(Base):
    """A user's message or the answer to it; both have the same ``turn``."""

    __tablename__ = "messages"
    __table_args__ = (UniqueConstraint("session_id", "turn", "role", name="uq_messages_turn"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    turn: Mapped[int]
    role: Mapped[str] = mapped_column(String(10))
    content: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime]
    answer_id: Mapped[str | None] = mapped_column(String(40))


class AnswerRow(Base):
    """The lineage of an answer."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_session_id", "session_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
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


def open_database(database_url: str) -> Engine:
    """Open a database and bring it to this version.

    Raises ConfigError when it can't be opened or is of a newer Housecall, and MissingPackage
    when its driver is not installed.
    """
    try:
        url = make_url(database_url)
        engine = create_engine(url, hide_parameters=True)
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
        migrations.upgrade(engine)
    except (OSError, SQLAlchemyError) as error:
        engine.dispose()
        name = url.render_as_string()
        raise ConfigError(f"{name}: can't be opened as a database: {reason(error)}") from error
    except ConfigError:
        engine.dispose()
        raise
    return engine


def reason(error: Exception) -> str:
    """The driver's own words in one line: SQLAlchemy's would repeat the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())


def _create_privately(file: Path) -> None:
    """Conversations about health are for nobody else on the machine to read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _configure_sqlite(connection: Any, _: object) -> None:
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "foreign_keys = ON",
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
