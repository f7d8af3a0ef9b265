"""Conversations are saved, found again, and deleted for good."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from housecall.database import Base, open_database
from housecall.errors import ConfigError, HousecallError, MissingPackage, NotFound
from housecall.sessions import AnswerRecord, SessionStore, new_id


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some where" / "housecall.db"


@pytest.fixture
def store(file: Path) -> Iterator[SessionStore]:
    store = SessionStore(f"sqlite:///{file}")
    yield store
    store.close()


def begin(store: SessionStore, session_id: str, message: str, *, new: bool = False) -> int:
    return store.begin_turn(session_id, message, new=new, system=None, model="demo")


def record(session_id: str | None = None, turn: int | None = None) -> AnswerRecord:
    return AnswerRecord(
        id=new_id("ans"),
        request_id="req_1",
        kind="chat" if session_id else "generate",
        session_id=session_id,
        turn=turn,
        created_at=datetime.now(UTC),
        finish_reason="stop",
        text_sha256="0" * 64,
        model={"name": "demo", "format": "gguf-q8_0"},
        lineage=({"kind": "variant", "sha256": "1"}, {"kind": "dataset", "sha256": "2"}),
        guard={"level": "none"},
        guard_version="1",
        sampling={"seed": 1},
        usage={"prompt_tokens": 3},
        timings={"ttft_ms": None},
        context=None,
    )


def test_a_conversation_survives_a_restart(file: Path, store: SessionStore) -> None:
    turn = begin(store, "ses_1", "I have\n a  cough", new=True)
    answer = record("ses_1", turn)
    store.save_answer(answer, "Since when?", "complete")
    begin(store, "ses_1", "Monday")
    store.close()

    again = SessionStore(f"sqlite:///{file}")
    saved = again.session("ses_1")
    assert [(m.turn, m.role, m.content, m.status) for m in saved.messages] == [
        (1, "user", "I have\n a  cough", "complete"),
        (1, "assistant", "Since when?", "complete"),
        (2, "user", "Monday", "complete"),
    ]
    assert saved.messages[1].answer_id == answer.id
    assert (saved.title, saved.model, saved.turns) == ("I have a cough", "demo", 2)
    assert again.answer(answer.id) == answer
    again.close()


def test_times_have_their_zone(store: SessionStore) -> None:
    begin(store, "ses_1", "hello", new=True)
    created = store.session("ses_1").created_at
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


def test_the_system_prompt_stays_until_another_is_given(store: SessionStore) -> None:
    store.begin_turn("ses_1", "a", new=True, system="first", model="demo")
    begin(store, "ses_1", "b")
    assert store.session("ses_1").system == "first"
    store.begin_turn("ses_1", "c", new=False, system="second", model="demo")
    assert store.session("ses_1").system == "second"


def test_sessions_come_newest_first_in_pages(store: SessionStore) -> None:
    for name in "abcde":
        begin(store, name, f"about {name}", new=True)
    begin(store, "b", "again")
    assert [s.id for s in store.sessions()] == ["b", "e", "d", "c", "a"]
    page = store.sessions(limit=2)
    assert [(s.id, s.turns) for s in page] == [("b", 2), ("e", 1)]
    assert [s.id for s in store.sessions(limit=9, before="e")] == ["d", "c", "a"]


def test_what_is_not_there_is_named(store: SessionStore) -> None:
    for ask in (store.session, store.answer, store.delete_session):
        with pytest.raises(NotFound, match="'nope'"):
            ask("nope")
    with pytest.raises(NotFound):
        store.sessions(before="nope")


def test_a_deleted_conversation_is_gone_from_the_disk(file: Path, store: SessionStore) -> None:
    answer = record("ses_1", begin(store, "ses_1", "a very secret illness", new=True))
    store.save_answer(answer, "a very secret remedy", "complete")
    assert b"very secret" in b"".join(f.read_bytes() for f in file.parent.iterdir())
    store.delete_session("ses_1")
    assert b"very secret" not in b"".join(f.read_bytes() for f in file.parent.iterdir())
    assert store.sessions() == []
    with pytest.raises(NotFound):
        store.answer(answer.id)


def test_nobody_else_can_read_the_file(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "hello", new=True)
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_answer_needs_its_session(store: SessionStore) -> None:
    with pytest.raises(HousecallError, match="the database failed: FOREIGN KEY"):
        store.save_answer(record("ses_gone", 1), "secret words", "complete")


def test_two_processes_may_write_at_once(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "first", new=True)
    other = SessionStore(f"sqlite:///{file}")
    with ThreadPoolExecutor(4) as threads:
        stores = [store, other] * 10
        turns = list(threads.map(lambda s: begin(s, "ses_1", "more"), stores))
    assert sorted(turns) == list(range(2, 22))
    other.close()


def test_two_servers_may_start_on_an_empty_folder_at_once(file: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: SessionStore(f"sqlite:///{file}"), range(4)))
    assert [store.sessions() for store in stores] == [[]] * 4
    for store in stores:
        store.close()


def test_the_migrations_make_the_tables_of_the_code(file: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_a_database_of_a_newer_version_is_left_alone(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "hello", new=True)
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigError, match=r"newer Housecall \(version 9999\): update Housecall"):
        SessionStore(f"sqlite:///{file}")


def test_a_failed_migration_leaves_nothing(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE answers (id TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match="answers already exists"):
        SessionStore(f"sqlite:///{file}")
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connected:
        tables = connected.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    engine.dispose()
    assert tables == ["answers"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "write it as sqlite:"),
        ("sqlite:////proc/nowhere/x.db", "can't be opened as a database"),
    ],
)
def test_a_bad_url_is_one_clear_line(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        SessionStore(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("remember the milk, and much more than that " * 10)
    with pytest.raises(ConfigError, match=r"notes\.txt: .*file is not a database"):
        SessionStore(f"sqlite:///{notes}")
    assert notes.read_text().startswith("remember")


def test_a_missing_driver_names_the_pip_line() -> None:
    with pytest.raises(MissingPackage, match="pip install oracledb"):
        SessionStore("oracle+oracledb://u:p@h/d")
