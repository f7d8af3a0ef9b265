"""HTTP/1.1 to a server on this machine over plain sockets: one connection for each request.

A general client (httpx) costs many times as much for each token of a stream, and the processor
that it takes is the engine's. The reading is done by httptools, which is llhttp, Node's parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

_BLOCK = 65_536
_LONGEST_HEAD = 65_536
_SECONDS_TO_CONNECT = 5.0


class Broken(Exception):
    """The connection could not be made, ended too early, or brought what is not HTTP."""


@dataclass(slots=True)
class Response:
    """An answer whose body is still to be read."""

    status: int
    _talk: _Talk

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300

    async def read(self) -> bytes:
        """The whole body. Raises Broken."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Broken when it ends too early."""
        while piece := await self._talk.piece():
            yield piece


class Loopback:
    """Asks the server at ``address`` (``http://127.0.0.1:PORT``), with ``headers`` each time."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(address)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 80
        lines = {"Host": url.netloc, "Connection": "close", **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

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
            length = "" if body is None else f"Content-Length: {len(body)}\r\n"
            head = f"{method} {path} HTTP/1.1\r\n{self._headers}{length}\r\n"
            writer.write(head.encode("ascii") + (body or b""))
            talk = _Talk(reader)
            yield Response(await talk.status(), talk)
        finally:
            writer.transport.abort()  # at once: this is how the other side learns to stop


class _Talk:
    """One answer as it is read from its connection; the parser calls the methods ``on_...``."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._parser = reader, HttpResponseParser(self)
        self._head = 0  # bytes of it
        self._pieces: list[bytes] = []
        self._begun = self._ended = False
        self._says_its_end = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._says_its_end |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._begun = self._parser.get_status_code() >= 200  # not "100 Continue" and its like

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._ended = self._begun

    async def status(self) -> int:
        """Reads the head. Raises Broken."""
        while not self._begun:
            self._head += await self._more()
            if self._head > _LONGEST_HEAD and not self._begun:
                raise Broken("the answer's head does not end")
        return self._parser.get_status_code()

    async def piece(self) -> bytes:
        """What has come of the body since the last one, empty at its end. Raises Broken."""
        while not (self._pieces or self._ended):
            await self._more()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        return piece

    async def _more(self) -> int:
        try:
            block = await self._reader.read(_BLOCK)
            self._parser.feed_data(block)
        except (OSError, HttpParserError) as error:
            raise Broken(str(error)) from error
        if not block and not self._ended:
            if not self._begun or self._says_its_end:
                raise Broken("the connection ended before the answer")
            self._ended = True  # an answer that says nothing of its length ends so
        return len(block)
