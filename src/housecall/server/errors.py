"""Every error as ``{"error": {"message", "type", "code", "param", "request_id"}}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from housecall.errors import (
    ConfigError,
    ContextLengthExceeded,
    EngineBusy,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    HousecallError,
    NotFound,
    SessionInUse,
    StoreUnavailable,
)

CLIENT_GONE = 499
"""Status in the log of a request whose client went away (the convention of nginx)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    type: str
    code: str
    retry_after: int | None = None  # seconds


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_KINDS: Mapping[type[HousecallError], _Kind] = {
    ContextLengthExceeded: _Kind(400, _INVALID, "context_length_exceeded"),
    ConfigError: _Kind(400, _INVALID, "invalid_request"),
    NotFound: _Kind(404, "not_found_error", "not_found"),
    SessionInUse: _Kind(409, "conflict_error", "session_in_use", retry_after=1),
    EngineBusy: _Kind(429, "rate_limit_error", "busy", retry_after=2),
    EngineUnavailable: _Kind(503, _SERVER, "engine_unavailable", retry_after=5),
    EngineTimeout: _Kind(504, _SERVER, "engine_timeout"),
    EngineError: _Kind(500, _SERVER, "engine_error"),
    StoreUnavailable: _Kind(503, _SERVER, "database_unavailable", retry_after=5),
    HousecallError: _Kind(500, _SERVER, "internal_error"),
}
_STATUS_KINDS: Mapping[int, _Kind] = {
    401: _Kind(401, "authentication_error", "invalid_api_key"),
    404: _Kind(404, "not_found_error", "not_found"),
    405: _Kind(405, _INVALID, "method_not_allowed"),
    413: _Kind(413, _INVALID, "body_too_large"),
    422: _Kind(422, _INVALID, "invalid_value"),
    500: _Kind(500, _SERVER, "internal_error"),
}


class ErrorDetail(BaseModel):
    """What went wrong, in one line for a person and one word for a program."""

    message: str
    type: str
    code: str
    param: str | None = Field(description="The field that is wrong, as in `messages.0.role`.")
    request_id: str
    n_prompt_tokens: int | None = Field(None, description="With `context_length_exceeded`.")
    n_ctx: int | None = Field(None, description="With `context_length_exceeded`.")


class ErrorBody(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorDetail


class ClientGone(Exception):
    """The client went away before its answer was there."""


class ApiError(HTTPException):
    """A refusal with a code and the parameter that caused it."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(status, message)
        self.code = code
        self.param = param


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its documentation."""
    return {status: {"model": ErrorBody} for status in statuses}


def install(app: FastAPI) -> None:
    """Give every error of ``app`` the one shape."""
    app.add_exception_handler(HousecallError, _on_housecall_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientGone, _on_client_gone)


def describe(error: Exception, request_id: str) -> dict[str, Any]:
    """The body for an error in the middle of a stream; an unforeseen one keeps its words."""
    if isinstance(error, HousecallError):
        kind = _kind(error)
        return _body(str(error), kind, request_id, **_facts(error))
    return _body("something went wrong here: see the server's log", _STATUS_KINDS[500], request_id)


def error_response(
    scope: Scope,
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A refusal for an ASGI request."""
    kind = _STATUS_KINDS.get(status, _Kind(status, _INVALID, "invalid_request"))
    if code is not None:
        kind = _Kind(status, kind.type, code)
    body = _body(message, kind, scope["state"]["request_id"], param=param)
    return _json(status, body, headers)


async def _on_housecall_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HousecallError)
    kind = _kind(error)
    headers = {"Retry-After": str(kind.retry_after)} if kind.retry_after else None
    return _json(kind.status, describe(error, request.state.request_id), headers)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    lines = [_line(detail) for detail in details]
    param, _ = lines[0]
    message = "; ".join(f"{name}: {text}" if name else text for name, text in lines)
    status = 400 if request.url.path.startswith("/v1/") else 422
    return error_response(request.scope, status, message, code="invalid_value", param=param)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, param = (error.code, error.param) if isinstance(error, ApiError) else (None, None)
    unreadable = error.status_code == 400 and code is None  # FastAPI's own, without a reason
    return error_response(
        request.scope,
        error.status_code,
        "the body can't be read: send JSON in UTF-8" if unreadable else str(error.detail),
        code="invalid_json" if unreadable else code,
        param=param,
        headers=error.headers,
    )


async def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


def _kind(error: HousecallError) -> _Kind:
    return next(_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS)


def _facts(error: HousecallError) -> dict[str, Any]:
    if isinstance(error, ContextLengthExceeded):
        return {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
    return {}


def _line(detail: Mapping[str, Any]) -> tuple[str | None, str]:
    """The parameter and what is wrong with it; never the value, which is a user's text."""
    location: Sequence[int | str] = detail["loc"]
    if detail["type"] == "json_invalid":
        return None, f"the body is not valid JSON at character {location[-1]}"
    parts = [str(part) for part in location[1:]]
    if detail["type"] != "extra_forbidden":
        # Pydantic adds which branch of a union it tried, as in "list[TextPart]".
        parts = [part for part in parts if part.isidentifier() or part.isdecimal()]
    name = ".".join(parts) or None
    if detail["type"] == "extra_forbidden":
        return name, "is not known here: leave it out"
    return name, str(detail["msg"]).removeprefix("Value error, ")


def _body(
    message: str, kind: _Kind, request_id: str, param: str | None = None, **facts: Any
) -> dict[str, Any]:
    error = {"message": message, "type": kind.type, "code": kind.code, "param": param}
    return {"error": error | {"request_id": request_id} | facts}


def _json(status: int, body: Any, headers: Mapping[str, str] | None) -> Response:
    # ASCII only: a name out of the request may hold half a surrogate pair.
    return Response(json.dumps(body), status, headers, "application/json")
