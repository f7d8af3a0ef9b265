"""HTTP/1.1 to a server on this machine: one connection a request, and no more than that needs.

A general client costs about twice as much for each token of a stream, and the processor that it
takes is the engine's. What is understood is what llama.cpp's server writes: a status, headers, and
a body in chunks, of a length, or up to the end of the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_BLOCK = 65_536
_SECONDS_TO_CONNECT = 5.0


class Broken(Exception):
    """The connection could not be made, ended too early, or brought what is not HTTP."""


@dataclass(slots=True)
class Response:
    """An answer whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    _reader: asyncio.StreamReader

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300

    async def read(self) -> bytes:
        """The whole body. Raises Broken."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Broken when it ends too early."""
        try:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self._reader.readline()).partition(b";")[0], 16):
                    yield (await self._reader.readexactly(size + 2))[:-2]
            elif (length := self.headers.get("content-length")) is not None:
                yield await self._reader.readexactly(int(length))
            else:
                while piece := await self._reader.read(_BLOCK):
                    yield piece
        except _FAILURES as error:
            raise Broken(str(error)) from error


class Loopback:
    """Asks the server at ``address`` (``http://127.0.0.1:PORT``), with ``headers`` each time."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(address)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 80
        lines = [f"Host: {url.netloc}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._headers = "\r\n".join(lines)

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, body: bytes | None = None
    ) -> AsyncGenerator[Response, None]:
        """Send a request; leaving closes its connection, read to the end or not. Raises Broken."""
        try:
            async with asyncio.timeout(_SECONDS_TO_CONNECT):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise Broken(str(error)) from error
        try:
            length = "" if body is None else f"\r\nContent-Length: {len(body)}"
            head = f"{method} {path} HTTP/1.1\r\n{self._headers}{length}\r\n\r\n"
            writer.write(head.encode("ascii") + (body or b""))
            try:
                response = await _response(reader)
            except _FAILURES as error:
                raise Broken(str(error)) from error
            yield response
        finally:
            writer.transport.abort()  # at once: this is how the other side learns to stop


_FAILURES = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)


async def _response(reader: asyncio.StreamReader) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not HTTP/1: {first!r}")
    return Response(int(status), headers, reader)
