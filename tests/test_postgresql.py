"""The same store on PostgreSQL, and two API processes that share it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from housecall.database import Base, open_database
from housecall.errors import NotFound, SessionInUse, StoreUnavailable
from housecall.sessions import SessionStore
from serving import started

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS, reason="needs Debian's package postgresql"),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg") is None, reason="needs the package psycopg"
    ),
]


class Cluster:
    """A PostgreSQL of its own on a socket in a folder, without a port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run("initdb", "--pgdata", str(folder / "data"), "--auth", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -k {self._folder}"
        log = str(self._folder / "log")
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-l", log, "-o", options, "-w", "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "fast", "-w", "stop")

    def database(self, name: str) -> str:
        """The URL of a new empty database."""
        self._run("createdb", "-h", str(self._folder), name)
        user = "postgres" if os.geteuid() == 0 else os.environ.get("USER", "")
        return f"postgresql+psycopg://{user}@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        # It refuses to run as root; Debian's package makes a user for it.
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(PROGRAMS[-1] / program), *arguments]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not below pytest's folder, which other users can't enter; and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        cluster = Cluster(folder)
        cluster.start()
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def url(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    return cluster.database(request.node.name[:60].lower())


@pytest.fixture
def store(url: str) -> Iterator[SessionStore]:
    store = SessionStore(url)
    yield store
    store.close()


def begin(store: SessionStore, session_id: str, message: str, *, new: bool = False) -> int:
    return store.begin_turn(session_id, message, new=new, system=None, model="demo").turn


def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    with ThreadPoolExecutor(4) as threads:  # servers that start at once
        engines = list(threads.map(open_database, [url] * 4))
    with engines[0].connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    for engine in engines:
        engine.dispose()


def test_one_session_is_answered_by_one_process(url: str, store: SessionStore) -> None:
    other = SessionStore(url)
    begin(store, "ses_1", "first \0 with NUL", new=True)
    for second in (store, other):
        with pytest.raises(SessionInUse):
            begin(second, "ses_1", "me too")
        with pytest.raises(SessionInUse):
            second.delete_session("ses_1")
    store.leave("ses_1", 1, [{"text": "nul \0 here", "turn": 1}])
    store.release("ses_1")
    assert begin(other, "ses_1", "second") == 2
    other.release("ses_1")
    assert store.session("ses_1").messages[0].content == "first \ufffd with NUL"
    assert [s.id for s in store.sessions(words="SECOND")] == ["ses_1"]
    other.close()


def test_of_many_at_once_one_gets_the_session(url: str, store: SessionStore) -> None:
    begin(store, "ses_1", "first", new=True)
    store.release("ses_1")
    others = [SessionStore(url) for _ in range(4)]

    def attempt(other: SessionStore) -> int:
        try:
            return begin(other, "ses_1", "me")
        except SessionInUse:
            return 0

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(attempt, others)) == [0, 0, 0, 2]
    for other in others:
        other.close()


def test_what_is_deleted_is_erased(store: SessionStore) -> None:
    begin(store, "ses_1", "a secret", new=True)
    store.release("ses_1")
    store.delete_session("ses_1")
    assert store.erase(timedelta(hours=1), None) == 0
    assert store.restore_session("ses_1").title == "a secret"
    store.delete_session("ses_1")
    assert store.erase(timedelta(0), None) == 1
    with pytest.raises(NotFound):
        store.restore_session("ses_1")


def test_two_api_processes_share_a_session(url: str, tmp_path: Path) -> None:
    flag = f"database_url={url}"
    with started(tmp_path, flag) as (_, one), started(tmp_path, flag) as (_, two):
        for address in (one, two):
            while httpx.get(f"{address}/ready", timeout=60).status_code == 503:
                pass
        first = httpx.post(f"{one}/chat", json={"message": "I cough."}, timeout=60).json()
        slow = {"message": "word " * 60, "session_id": first["session_id"]}
        body = {**slow, "stream": True}
        with httpx.stream("POST", f"{one}/chat", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: token"
            refused = httpx.post(f"{two}/chat", json=slow, timeout=60)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_in_use")
            assert "event: done" in list(lines)
        third = httpx.post(f"{two}/chat", json={**slow, "message": "And now?"}, timeout=60)
        assert third.json()["turn"] == 3
        saved = httpx.get(f"{one}/sessions/{first['session_id']}", timeout=60).json()["messages"]
        assert [(m["turn"], m["role"]) for m in saved] == [
            (turn, role) for turn in (1, 2, 3) for role in ("user", "assistant")
        ]


def test_a_server_that_has_gone_is_said_and_found_again(
    cluster: Cluster, store: SessionStore
) -> None:
    begin(store, "ses_1", "first", new=True)
    store.release("ses_1")
    cluster.stop()
    try:
        with pytest.raises(StoreUnavailable, match="the database failed"):
            begin(store, "ses_1", "lost?")
    finally:
        cluster.start()
    assert begin(store, "ses_1", "there again") == 2
