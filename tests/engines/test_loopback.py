"""The client for servers on this machine, against sockets that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from housecall.engines.loopback import Broken, Loopback

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def saying(*parts: bytes) -> AsyncIterator[tuple[Loopback, list[bytes]]]:
    """A server that keeps what it is asked, says ``parts`` one by one, and closes."""
    asked: list[bytes] = []
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()
            answered.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Loopback(f"http://127.0.0.1:{port}", {"Authorization": "Bearer k"}), asked
        await answered.wait()


OK = b"HTTP/1.1 200 OK\r\n"
BODIES = {
    "a length": (OK + b"Content-Length: 4\r\n\r\n", b"ab", b"cd"),
    "chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"2;x=1\r\nc",
        b"d\r\n0\r\n\r\n",
    ),
    "the end": (OK + b"\r\n", b"abcd"),
    "cut headers": (b"HTTP/1.1 200 O", b"K\r\nContent-", b"Length: 4\r\n\r\nabcd"),
}


@pytest.mark.parametrize("parts", BODIES.values(), ids=BODIES)
async def test_bodies_of_every_kind(parts: tuple[bytes, ...]) -> None:
    async with saying(*parts) as (loopback, asked), loopback.ask("POST", "/x", b"hi") as response:
        assert response.ok
        assert await response.read() == b"abcd"
    head = asked[0].decode().split("\r\n")
    assert head[0] == "POST /x HTTP/1.1"
    assert {"Connection: close", "Authorization: Bearer k", "Content-Length: 2"} <= set(head)


async def test_pieces_come_when_they_are_there() -> None:
    parts = (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n")
    async with saying(*parts) as (loopback, _), loopback.ask("GET", "/") as response:
        assert [piece async for piece in response.pieces()] == [b"a", b"b"]


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"Content-Length: 9\r\n\r\n", b"abcd"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nab",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n",),
        (b"",),
        (b"SSH-2.0-nothing\r\n\r\n",),
        (b"HTTP/1.1 many\r\n\r\n",),
        (OK + b"x" * 100_000,),
    ],
)
async def test_what_ends_early_or_is_not_http_is_broken(parts: tuple[bytes, ...]) -> None:
    async with saying(*parts) as (loopback, _):
        with pytest.raises(Broken):
            async with loopback.ask("GET", "/") as response:
                await response.read()


async def test_nobody_there_is_broken_and_a_callers_own_error_is_not() -> None:
    async with saying(OK + b"\r\n") as (loopback, _):
        with pytest.raises(ValueError, match="mine"):
            async with loopback.ask("GET", "/"):
                raise ValueError("mine")
    with pytest.raises(Broken):
        async with loopback.ask("GET", "/"):
            pass


async def test_leaving_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        try:
            while await reader.read(100):
                pass
        except ConnectionError:
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asyncio.timeout(30):
        loopback = Loopback(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {})
        async with loopback.ask("GET", "/") as response:
            assert await anext(response.pieces()) == b"a"
        await gone.wait()
