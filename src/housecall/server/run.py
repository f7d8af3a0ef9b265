"""Serves an app with uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from housecall.engines.base import Engine
from housecall.errors import ConfigError, HousecallError
from housecall.server import logs
from housecall.settings import Settings

if TYPE_CHECKING:  # it takes long to import: `make` does that
    from fastapi import FastAPI

_SECONDS_TO_END = 3


def bind(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Take the port, before anything that takes long is done.

    Raises ConfigError in one line when it is in use or not to be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"host {host!r} is not an address of this machine: {error}") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use: choose another with {flag}") from None
        raise ConfigError(f"can't listen on {host} port {port}: {error.strerror}") from None
    return listener


def serve(
    make: Callable[[], FastAPI],
    settings: Settings,
    listener: socket.socket | None = None,
    engine: Engine | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; answers in progress may end first, for a while.

    A second signal ends at once; what was said of open answers is saved all the same.

    ``make`` makes the app, in a thread. Given the app's ``engine``, the model loads meanwhile: that
    takes about as long as to import packages and to read the guard's rules.

    ``listener`` is what ``bind`` gave; without it the port is taken here. Raises ConfigError for
    the port, what making the app raises, and the error that kept the model from loading.
    """
    logs.configure(settings.log_format)
    with (
        listener or bind(settings.host, settings.port) as open_listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(make, settings, open_listener, engine))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one (not on Windows): it leaves the engine more of the processor."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    make: Callable[[], FastAPI],
    settings: Settings,
    listener: socket.socket,
    engine: Engine | None,
) -> None:
    began = time.monotonic()
    loading = None if engine is None else asyncio.ensure_future(engine.start())
    try:
        app = await asyncio.to_thread(make)
    except BaseException:
        if engine is not None and loading is not None:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await engine.close()
        raise
    gc.freeze()  # rules and packages stay: looking them over again halts all answers for 60 ms
    app.state.loading, app.state.began = loading, began
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http="httptools",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    with _returning_from_signals():
        await _Server(config, app, settings.drain_seconds).serve(sockets=[listener])
    failure: HousecallError | None = app.state.failure
    if failure is not None:
        raise failure


class _Server(uvicorn.Server):
    """Ends when the model can't be loaded; a signal lets it drain first."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._drained_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal takes no more questions, the second one ends what is going on."""
        if self._drained_at is None:
            self._drained_at = time.monotonic() + self._drain_seconds
            self._app.state.answerer.drain()
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._drained_at is not None:
            waited = time.monotonic() >= self._drained_at
            if waited and not self.should_exit:
                self._app.state.answerer.cut()  # clients are told before connections close
            self.should_exit = self.should_exit or waited or not self.server_state.tasks
        return await super().on_tick(counter) or self._app.state.failure is not None


@contextmanager
def _returning_from_signals() -> Iterator[None]:
    """Let ``serve`` return after a signal, instead of dying by it when all is shut down."""

    def ignore(_: int, __: FrameType | None) -> None:
        """Uvicorn has already acted on it."""

    before = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
