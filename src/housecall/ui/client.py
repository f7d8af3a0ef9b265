"""A small client of the HTTP API. It imports nothing of Housecall: the API is all the UI knows."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import httpx

_SECONDS = httpx.Timeout(10, connect=3)
_ANSWER_SECONDS = httpx.Timeout(600, connect=3)  # a place in the queue and a long prompt first


class ApiError(Exception):
    """The API refused or failed; the message is for a person. ``status`` 0: no response."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ApiDown(ApiError):
    """Nothing answers at the API's address."""


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: dict[str, Any]


class Page(NamedTuple):
    """Conversations, newest first, and whether there are more."""

    sessions: list[dict[str, Any]]
    more: bool


class Api:
    """The API at ``url``. Methods raise ApiError, or ApiDown when nothing is there."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # No proxy of the environment: what is asked here goes to the API and nowhere else.
        self._client = httpx.Client(headers=headers, timeout=_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def not_ready(self) -> str:
        """Why no model answers yet; empty when one does."""
        with self._translated():
            response = self._client.get(f"{self.url}/ready")
            return "" if response.is_success else str(self._refusal(response))

    def models(self) -> list[dict[str, Any]]:
        """The models that answer; the first is the default."""
        models: list[dict[str, Any]] = self._get("/models")["models"]
        return models

    def sessions(self, limit: int = 20) -> Page:
        """The newest conversations."""
        found = self._get("/sessions", limit=limit)
        return Page(found["sessions"], found["next"] is not None)

    def session(self, session_id: str) -> dict[str, Any]:
        """One conversation with its messages."""
        return self._get(f"/sessions/{session_id}")

    def answer(self, answer_id: str) -> dict[str, Any]:
        """The lineage of an answer."""
        return self._get(f"/answers/{answer_id}")

    def chat(self, body: Mapping[str, Any]) -> Generator[Event, None, None]:
        """The events of an answer. Closing the generator cancels the answer."""
        asked = {**body, "stream": True}
        with (
            self._translated(),
            self._client.stream(
                "POST", f"{self.url}/chat", json=asked, timeout=_ANSWER_SECONDS
            ) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield from read_events(response.iter_lines())

    def _get(self, path: str, **query: int) -> dict[str, Any]:
        with self._translated():
            response = self._client.get(self.url + path, params=query)
            if not response.is_success:
                raise self._refusal(response)
            body: dict[str, Any] = response.json()
            return body

    def _refusal(self, response: httpx.Response) -> ApiError:
        message = response.json()["error"]["message"]
        return ApiError(str(message), response.status_code)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ApiDown(f"The API at {self.url} does not answer.") from error
        except httpx.TimeoutException as error:
            raise ApiError(f"The API at {self.url} took too long.") from error
        except httpx.TransportError as error:
            raise ApiError(f"The connection to the API at {self.url} broke.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(f"What answers at {self.url} is not the API of Housecall.") from error


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Server-sent events out of the lines of a response; comments and other fields are passed."""
    name, data = "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data:
                yield Event(name, json.loads("\n".join(data)))
            name, data = "message", []
