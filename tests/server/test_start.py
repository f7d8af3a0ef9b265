"""How a server starts: the model loads while the app is made."""

from __future__ import annotations

import signal
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from housecall.errors import ConfigError
from housecall.server.run import bind, serve
from housecall.settings import load_settings


class Watched(FakeEngine):
    """Says in another thread's terms when it is started and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = 0
        self.started, self.closed = threading.Event(), threading.Event()

    async def start(self) -> None:
        self.starts += 1
        await super().start()
        self.started.set()

    async def close(self) -> None:
        await super().close()
        self.closed.set()


def test_the_model_loads_while_the_app_is_made_and_once(app_of: Any) -> None:
    engine = Watched()
    listener = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def make() -> FastAPI:
        assert engine.started.wait(60), "the model waits for the app"
        app: FastAPI = app_of(engine)
        return app

    def end_once_it_answers() -> None:
        # Earlier, nobody would catch the signal. The open port keeps the question until then.
        httpx.get(f"{address}/health", timeout=60)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=end_once_it_answers).start()
    serve(make, load_settings(), listener, engine)
    assert engine.closed.is_set()
    assert engine.starts == 1


def test_an_app_that_can_not_be_made_leaves_no_engine_behind() -> None:
    engine = Watched()

    def make() -> FastAPI:
        assert engine.started.wait(60)
        raise ConfigError("the guard's rules are broken")

    with pytest.raises(ConfigError, match="rules are broken"):
        serve(make, load_settings(), bind("127.0.0.1", 0), engine)
    assert engine.closed.is_set()
