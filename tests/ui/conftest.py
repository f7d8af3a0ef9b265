"""The API over a scripted engine, and the page that speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from housecall.engines.fake import FakeEngine
from housecall.server.app import create_app
from housecall.sessions import SessionStore
from housecall.settings import load_settings
from serving import MODEL, ScriptedGuard, serving

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve an engine on a free port, and let the page know the address; gives it."""
    with ExitStack() as stack:

        def start(engine: FakeEngine | None = None, **flags: object) -> str:
            settings = load_settings(after_emergency="continue", data_dir=tmp_path, **flags)
            store = SessionStore(settings.database)
            stack.callback(store.close)
            app = create_app(engine or FakeEngine(), ScriptedGuard(), MODEL, store, settings)
            url = stack.enter_context(serving(app))
            monkeypatch.setenv("HOUSECALL_URL", url)
            return url

        yield start
