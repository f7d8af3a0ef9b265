"""Conversations are saved, found again, and deleted for good."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event

from housecall import database, leases, migrations
from housecall.database import Base, open_database
from housecall.errors import (
    ConfigError,
    HousecallError,
    MissingPackage,
    NotFound,
    SessionInUse,
    StoreUnavailable,
)
from housecall.records import AnswerRecord, new_id
from housecall.sessions import SessionStore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some where" / "housecall.db"


@pytest.fixture
def store(file: Path) -> Iterator[SessionStore]:
    store = SessionStore(f"sqlite:///{file}")
    yield store
    store.close()


def begin(store: SessionStore, session_id: str, message: str, *, new: bool = False) -> int:
    begun = store.begin_turn(session_id, message, new=new, system=None, model="demo")
    store.release(session_id)
    return begun.turn


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


def test_conversations_wait_for_the_disk_and_other_lineage_does_not(
    store: SessionStore,
) -> None:
    """FULL (2) flushes the log at each commit; NORMAL (1) leaves that to the next checkpoint."""
    levels = []

    def committing(connection: Connection) -> None:
        levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

    event.listen(store._engine, "commit", committing)
    store.save_answer(record(), "", "complete")
    begin(store, "ses_1", "I have a cough", new=True)
    store.save_answer(record("ses_1", 1), "Rest.", "complete")
    store.save_answer(record(), "", "complete")
    store.delete_session("ses_1")
    assert levels == [1, 2, 2, 2, 1, 2]


def test_times_have_their_zone(store: SessionStore) -> None:
    begin(store, "ses_1", "hello", new=True)
    created = store.session("ses_1").created_at
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


def test_the_system_prompt_stays_until_another_is_given(store: SessionStore) -> None:
    store.begin_turn("ses_1", "a", new=True, system="first", model="demo")
    store.release("ses_1")
    begin(store, "ses_1", "b")
    assert store.session("ses_1").system == "first"
    begun = store.begin_turn("ses_1", "c", new=False, system="second", model="demo")
    assert begun.system == "second"
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
    assert store.erase(timedelta(0), None) == 1
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
    other = SessionStore(f"sqlite:///{file}")

    def converse(place: int) -> list[int]:
        mine = (store, other)[place % 2]
        begin(mine, f"ses_{place}", "first", new=True)
        return [begin(mine, f"ses_{place}", f"more {i}") for i in range(5)]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(converse, range(8))) == [[2, 3, 4, 5, 6]] * 8
    other.close()


def test_two_servers_may_start_on_an_empty_folder_at_once(file: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: SessionStore(f"sqlite:///{file}"), range(4)))
    assert [store.sessions() for store in stores] == [[]] * 4
    for store in stores:
        store.close()


def test_opening_waits_for_another_process_that_is_writing(file: Path) -> None:
    """SQLite doesn't by itself, while the file has no write-ahead log yet."""
    file.parent.mkdir()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(open_database, f"sqlite:///{file}")
        done, _ = wait([opening], timeout=0.3)
        other.execute("COMMIT")
        assert not done
        opening.result().dispose()
    other.close()


def test_the_migrations_make_the_tables_of_the_code(file: Path) -> None:
    engine = open_database(f"sqlite:///{file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_the_newest_migration_is_named() -> None:
    """A database of that version is opened without Alembic."""
    scripts = ScriptDirectory.from_config(migrations._config())
    assert scripts.get_heads() == [migrations.HEAD]


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


def test_one_session_is_answered_by_one_process(file: Path, store: SessionStore) -> None:
    """The lock is in the database, so that it holds for all servers that share it."""
    other = SessionStore(f"sqlite:///{file}")
    ask = {"system": None, "model": "demo"}
    store.begin_turn("ses_1", "first", new=True, **ask)
    for second in (store, other):
        with pytest.raises(SessionInUse, match="'ses_1' is being answered"):
            second.begin_turn("ses_1", "me too", new=False, **ask)
        with pytest.raises(SessionInUse):
            second.delete_session("ses_1")
    store.save_answer(record("ses_1", 1), "yes", "complete")
    assert other.begin_turn("ses_1", "second", new=False, **ask).turn == 2
    other.release("ses_1")
    other.close()


def test_of_many_at_once_one_gets_the_session(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "first", new=True)
    others = [SessionStore(f"sqlite:///{file}") for _ in range(4)]

    def attempt(other: SessionStore) -> int:
        try:
            return other.begin_turn("ses_1", "me", new=False, system=None, model="demo").turn
        except SessionInUse:
            return 0

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(attempt, others)) == [0, 0, 0, 2]
    for other in others:
        other.close()


CRASH = """
import os, sys
from housecall.sessions import SessionStore
store = SessionStore(sys.argv[1])
store.begin_turn("ses_1", "my words", new=True, system=None, model="demo")
os._exit(9)
"""


def test_a_process_that_died_leaves_its_question_and_no_lock(file: Path) -> None:
    url = f"sqlite:///{file}"
    done = subprocess.run([sys.executable, "-c", CRASH, url], timeout=60)
    assert done.returncode == 9
    store = SessionStore(url)
    assert [m.content for m in store.session("ses_1").messages] == ["my words"]
    assert begin(store, "ses_1", "my words") == 1
    assert begin(store, "ses_1", "other words") == 2
    store.close()


def test_a_lease_of_another_machine_ends_by_itself(
    file: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_machine", lambda: "elsewhere")
    other = SessionStore(f"sqlite:///{file}")
    monkeypatch.undo()
    other.begin_turn("ses_1", "first", new=True, system=None, model="demo")
    other.close()
    with pytest.raises(SessionInUse):
        begin(store, "ses_1", "me too")
    monkeypatch.setattr(leases, "LEASE", timedelta(seconds=-1))
    other.renew()
    assert begin(store, "ses_1", "me too") == 2


def test_old_conversations_are_erased(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "a very secret illness", new=True)
    store.save_answer(record(), "", "complete")
    assert store.erase(timedelta(0), timedelta(days=1)) == 0
    begin(store, "ses_2", "still in use", new=True)
    store.begin_turn("ses_2", "an answer is on its way", new=False, system=None, model="demo")
    assert store.erase(timedelta(0), timedelta(0)) == 1
    assert [session.id for session in store.sessions()] == ["ses_2"]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (0,)
    assert b"very secret" not in b"".join(f.read_bytes() for f in file.parent.iterdir())


def test_words_that_a_reader_holds_are_wiped_the_next_time(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 10)
    with (
        closing(SessionStore(f"sqlite:///{file}")) as store,
        closing(sqlite3.connect(file, isolation_level=None)) as reader,
    ):
        begin(store, "ses_1", "a very secret illness", new=True)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sessions").fetchall()
        store.delete_session("ses_1")
        assert store.erase(timedelta(0), None) == 1
        reader.execute("ROLLBACK")
        assert store.erase(timedelta(0), None) == 0
    assert b"very secret" not in b"".join(f.read_bytes() for f in file.parent.iterdir())


def test_a_file_that_has_gone_is_said_and_not_made_anew(file: Path, store: SessionStore) -> None:
    begin(store, "ses_1", "hello", new=True)
    moved = file.with_suffix(".moved")
    file.rename(moved)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"the database failed: the file .* has gone"):
            begin(store, "ses_2", "lost words", new=True)
    assert not file.exists()
    moved.rename(file)
    assert begin(store, "ses_1", "there again") == 2


def test_a_file_that_was_replaced_is_the_one_that_is_used(
    file: Path, store: SessionStore, tmp_path: Path
) -> None:
    begin(store, "ses_1", "hello", new=True)
    copy = tmp_path / "copy.db"
    backup(file, copy)
    for old in file.parent.iterdir():
        old.unlink()
    copy.rename(file)
    assert begin(store, "ses_1", "there again") == 2
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_a_database_that_can_not_be_written_is_said(store: SessionStore) -> None:
    event.listen(store._engine, "connect", lambda c, _: c.execute("PRAGMA query_only = 1"))
    store._engine.dispose()
    with pytest.raises(StoreUnavailable, match="attempt to write a readonly database"):
        begin(store, "ses_1", "hello", new=True)
    assert store.sessions() == []


def backup(file: Path, copy: Path) -> None:
    """SQLite's online backup, as docs/scale.md shows it."""
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def test_a_backup_is_taken_while_others_write(
    file: Path, store: SessionStore, tmp_path: Path
) -> None:
    begin(store, "ses_1", "first", new=True)
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(lambda: [begin(store, "ses_1", f"more {i}") for i in range(30)])
        backup(file, tmp_path / "copy.db")
        writing.result()
    copy = SessionStore(f"sqlite:///{tmp_path / 'copy.db'}")
    messages = copy.session("ses_1").messages
    assert [message.turn for message in messages] == list(range(1, len(messages) + 1))
    copy.close()


FIRST_VERSION = Path(__file__).parent / "data" / "housecall-0001.sql"


def test_a_database_of_the_first_version_is_taken_over(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(FIRST_VERSION.read_text(encoding="utf-8"))
    store = SessionStore(f"sqlite:///{file}")
    [info] = store.sessions(owner="")
    saved = store.session(info.id)
    assert (saved.title, saved.first_turn, saved.pinned) == ("I have a cough", 1, ())
    assert [(m.turn, m.role, m.content) for m in saved.messages] == [
        (1, "user", "I have a cough"),
        (1, "assistant", "Since when?"),
        (2, "user", "Since Monday"),
    ]
    assert store.answer(str(saved.messages[1].answer_id)).turn == 1
    assert begin(store, info.id, "Still there?") == 3
    store.close()
