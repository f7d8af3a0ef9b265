"""Speaks HTTP to one life of the engine's child process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx

from housecall.engines.llama_process import LlamaProcess
from housecall.engines.llama_wire import encode, error_from, lines_of
from housecall.errors import EngineError, EngineUnavailable


class LlamaClient:
    """The engine's server at ``address``, which asks for ``key``.

    Whatever is asked raises EngineUnavailable when the child dies, and EngineError or
    ContextLengthExceeded when it refuses.
    """

    def __init__(self, address: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(None, connect=5.0),  # how long an answer may take: the caller's
            verify=False,  # no TLS on loopback: loading certificates would take 0.1 s
            # The engine drops a connection after a stream without saying so: use each once.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,  # no proxy between two processes of one machine
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def healthy(self) -> bool:
        """True when the child says so, within a second."""
        try:
            return (await self._client.get("/health", timeout=1.0)).is_success
        except httpx.TransportError:
            return False

    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One whole answer, as JSON."""
        content = None if body is None else encode(body)
        try:
            response = await self._client.request(method, path, content=content)
        except httpx.TransportError as error:
            raise _died() from error
        answer = response.json()
        if not response.is_success:
            raise error_from(answer)
        return answer

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The lines of an answer; it is an error when they end before the reader has closed."""
        try:
            async with self._client.stream("POST", path, content=encode(body)) as response:
                if not response.is_success:
                    raise error_from(json.loads(await response.aread()))
                async for line in lines_of(response.aiter_bytes()):
                    yield line
        except httpx.TransportError as error:
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
            await client.close()
            raise EngineError(f"the engine died when it had loaded {process.model}")
        await asyncio.sleep(0.05)
    return client


def _died() -> EngineUnavailable:
    return EngineUnavailable("the engine stopped answering: try again in a few seconds")
