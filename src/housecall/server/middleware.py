"""What happens to every request before a route sees it: id, log line, host, key and size checks."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from housecall.server.errors import CLIENT_GONE, ApiError, error_response
from housecall.server.logs import log_request
from housecall.server.tracing import request_span

_log = logging.getLogger(__name__)

OnEnd = Callable[[str, str, int, float], None]
"""Told of every request at its end: method, route, status and seconds."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN_PATHS = ("/health", "/ready", "/docs", "/openapi.json")


class RequestId:
    """The outermost: gives each request its id and log line, and each crash a response."""

    def __init__(self, app: ASGIApp, on_end: OnEnd) -> None:
        self._app = app
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        # Routes add to "log" what belongs in the request's line.
        scope.setdefault("state", {}).update(request_id=request_id, log={})
        await _Exchange(request_id, send, self._on_end).run(self._app, scope, receive)


class _Exchange:
    """One request and its response."""

    def __init__(self, request_id: str, send: Send, on_end: OnEnd) -> None:
        self._id = request_id
        self._on_end = on_end
        self._send_on = send
        self._status = CLIENT_GONE
        self._started = False

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        began = perf_counter()
        facts = scope["state"]["log"]
        try:
            with request_span(facts):
                try:
                    await app(scope, receive, self._send)
                finally:
                    facts |= self._facts(scope, perf_counter() - began)
        except Exception:
            _log.exception("a request crashed", extra={"fields": {"request_id": self._id}})
            if not self._started:
                response = error_response(
                    scope, 500, "something went wrong here: see the server's log"
                )
                await response(scope, receive, self._send)
        finally:
            facts |= self._facts(scope, perf_counter() - began)
            self._on_end(facts["method"], facts["route"], self._status, perf_counter() - began)
            log_request(facts)

    def _facts(self, scope: Scope, seconds: float) -> dict[str, Any]:
        """What every line has; a path is told as its route, because ids are in it."""
        route = getattr(scope.get("route"), "path", "-")
        return {
            "request_id": self._id,
            "method": scope["method"],
            "route": route,
            "status": self._status,
            "duration_ms": round(seconds * 1000, 1),
        }

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self._id
        await self._send_on(message)


class AllowedHosts:
    """Answers only requests for known names: a web page can't reach the API by DNS rebinding."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and "*" not in self._hosts:
            host = _host_name(Headers(scope=scope).get("host", ""))
            if host not in self._hosts:
                message = (
                    "this Host is not answered here: add it to HOUSECALL_ALLOWED_HOSTS if it is "
                    "a name of this server"
                )
                response = error_response(scope, 400, message, code="host_not_allowed")
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class ApiKeys:
    """Asks for ``Authorization: Bearer KEY``, except where no data is behind a path."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not _is_open(scope["path"]):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            # What a key has asked for is this key's: no other one sees it.
            scope["state"]["owner"] = _digest(key.strip()).hex()
            if scheme.lower() != "bearer" or not self._known(key.strip()):
                message = "send an API key of this server as  Authorization: Bearer KEY"
                headers = {"WWW-Authenticate": "Bearer"}
                response = error_response(scope, 401, message, headers=headers)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _known(self, key: str) -> bool:
        """Compares with every key in constant time."""
        digest = _digest(key)
        return True in [hmac.compare_digest(digest, known) for known in self._digests]


class BodyLimit:
    """Refuses bodies that are too large, announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await error_response(scope, 413, self._message())(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise ApiError(413, self._message(), code="body_too_large")
            return message

        await self._app(scope, limited, send)

    def _message(self) -> str:
        return (
            f"the body is larger than {self._max_bytes} bytes: shorten it, or serve with a larger "
            "HOUSECALL_MAX_BODY_BYTES"
        )


def _host_name(header: str) -> str:
    """A Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith("/docs/")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
