"""Speaks HTTP to one life of the engine's child process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from housecall.engines.llama_process import LlamaProcess
from housecall.engines.llama_wire import encode, error_from, lines_of
from housecall.engines.loopback import Broken, Loopback
from housecall.errors import EngineError, EngineUnavailable


class LlamaClient:
    """The engine's server at ``address``, which asks for ``key``.

    Whatever is asked raises EngineUnavailable when the child dies, and EngineError or
    ContextLengthExceeded when it refuses.
    """

    def __init__(self, address: str, key: str) -> None:
        self._server = Loopback(
            address, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        )

    async def healthy(self) -> bool:
        """True when the child says so, within a second."""
        try:
            async with asyncio.timeout(1.0), self._server.ask("GET", "/health") as response:
                return response.ok
        except (Broken, TimeoutError):
            return False

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One whole answer, as JSON."""
        try:
            content = None if body is None else encode(body)
            async with self._server.ask(method, path, content) as response:
                answer = json.loads(await response.read())
        except Broken as error:
            raise _died() from error
        if not response.ok:
            raise error_from(answer)
        return answer

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The lines of an answer; it is an error when they end before the reader has closed."""
        try:
            async with self._server.ask("POST", path, encode(body)) as response:
                if not response.ok:
                    raise error_from(json.loads(await response.read()))
                async for line in lines_of(response.pieces()):
                    yield line
        except Broken as error:
            raise _died() from error
        raise _died()


async def started(process: LlamaProcess) -> LlamaClient:
    """Start a child and wait until it answers.

    Raises EngineError when it can't load its model.
    """
    await process.start()
    client = LlamaClient(process.address, process.key)
    while not await client.healthy():
        if not process.alive:
            raise EngineError(f"the engine died when it had loaded {process.model}")
        await asyncio.sleep(0.05)
    return client


def _died() -> EngineUnavailable:
    return EngineUnavailable("the engine stopped answering: try again in a few seconds")
