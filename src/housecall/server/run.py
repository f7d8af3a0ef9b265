"""Serves an app with uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from housecall.errors import ConfigError, HousecallError
from housecall.server import logs
from housecall.settings import Settings

_DRAIN_SECONDS = 20


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


def serve(app: FastAPI, settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; answers in progress may end first, for a while.

    ``listener`` is what ``bind`` gave; without it the port is taken here. Raises ConfigError for
    the port, and the error that kept the model from loading.
    """
    listener = listener or bind(settings.host, settings.port)
    logs.configure(settings.log_format)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    with listener, _returning_from_signals():
        asyncio.run(_Server(config, app).serve(sockets=[listener]))
    failure: HousecallError | None = app.state.failure
    if failure is not None:
        raise failure


class _Server(uvicorn.Server):
    """Ends when the model can't be loaded."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def on_tick(self, counter: int) -> bool:
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
