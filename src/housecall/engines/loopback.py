"""HTTP/1.1 to a server on this machine, spoken by h11 over plain sockets: one connection each.

A general client (httpx) costs about 1.6 times as much for each token of a stream, and the processor
that it takes is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

_BLOCK = 65_536
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
        while isinstance(event := await self._talk.event(), h11.Data):
            yield bytes(event.data)


class Loopback:
    """Asks the server at ``address`` (``http://127.0.0.1:PORT``), with ``headers`` each time."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(address)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 80
        self._headers = [("Host", url.netloc), ("Connection", "close"), *headers.items()]

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
            talk = _Talk(reader)
            length = [] if body is None else [("Content-Length", str(len(body)))]
            request = h11.Request(method=method, target=path, headers=self._headers + length)
            writer.write(talk.said(request, h11.Data(data=body or b""), h11.EndOfMessage()))
            while not isinstance(event := await talk.event(), h11.Response):
                pass  # "100 Continue" and its like
            yield Response(event.status_code, talk)
        finally:
            writer.transport.abort()  # at once: this is how the other side learns to stop


class _Talk:
    """What h11 makes of the bytes of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._http = reader, h11.Connection(h11.CLIENT)

    def said(self, *events: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        return b"".join(self._http.send(event) or b"" for event in events)

    async def event(self) -> h11.Event:
        """The next event. Raises Broken."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_BLOCK))
        except (OSError, h11.RemoteProtocolError) as error:
            raise Broken(str(error)) from error
        if not isinstance(
            event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage
        ):
            raise Broken("the connection ended before the answer")
        return event
