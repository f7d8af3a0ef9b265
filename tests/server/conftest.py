"""The API over a scripted engine: in this process, or on a port for real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from housecall.engines.fake import FakeEngine
from housecall.server.app import create_app
from housecall.sessions import SessionStore
from housecall.settings import load_settings
from serving import MODEL, ScriptedGuard, client_for, serving


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def app_of(tmp_path: Path) -> Iterator[Callable[..., FastAPI]]:
    """Make an app of an engine and settings; ``database`` is kept from one to the next."""
    with ExitStack() as stores:

        def make(engine: FakeEngine | None = None, **flags: Any) -> FastAPI:
            flags = {"after_emergency": "continue", **flags}  # so that both voices are heard
            settings = load_settings(data_dir=tmp_path, **flags)
            store = SessionStore(settings.database)
            stores.callback(store.close)
            return create_app(engine or FakeEngine(), ScriptedGuard(), MODEL, store, settings)

        yield make


@pytest.fixture
async def client_of(
    app_of: Callable[..., FastAPI],
) -> AsyncIterator[Callable[..., Any]]:
    """Make a client of an app in this process; it takes what ``app_of`` takes."""
    async with AsyncExitStack() as clients:

        async def make(engine: FakeEngine | None = None, **flags: Any) -> httpx.AsyncClient:
            app = app_of(engine, **flags)
            await clients.enter_async_context(app.router.lifespan_context(app))
            client = await clients.enter_async_context(client_for(app))
            while (await client.get("/ready")).status_code == 503:
                await asyncio.sleep(0.001)
            return client

        yield make


@pytest.fixture
async def client(client_of: Callable[..., Any]) -> httpx.AsyncClient:
    """A client of an app with the default engine and settings."""
    made: httpx.AsyncClient = await client_of()
    return made


@pytest.fixture
def openai_of(app_of: Callable[..., FastAPI]) -> Iterator[Callable[..., Any]]:
    """Make OpenAI's client of a server on a free port."""
    import openai

    open_clients: list[Any] = []

    def make(engine: FakeEngine | None = None, *, key: str = "unused", **flags: Any) -> Any:
        server = serving(app_of(engine, **flags))
        address = server.__enter__()
        client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
        open_clients.append((client, server))
        return client

    yield make
    for client, server in open_clients:
        client.close()
        server.__exit__(None, None, None)
