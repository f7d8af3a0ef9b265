"""Any OpenAI-compatible server as the engine: vLLM, Ray Serve, another llama-server.

Such a server takes messages, not token ids: what its chat template does with ``<|im_end|>`` in a
user's text is up to it, and Housecall can't promise that no turn is forged there.

To the rest of Housecall this is an engine like the others. Its "tokens" are runs of up to three
characters, packed into numbers, and two control tokens; so a prompt can be turned back into
messages, with nothing in a content that could end it. They also stand for the real tokens in the
memory's sums: three characters a token is more tokens than English needs, so windows err on the
short side. ``usage`` is the other server's own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx

from housecall.engines.base import EngineInfo, unit
from housecall.engines.llama_wire import encode, lines_of
from housecall.engines.remote_wire import (
    CHARACTERS,
    CONTROL,
    END,
    TEMPLATE,
    control,
    message_of,
    pack,
    request_for,
    scores_of,
    text_of,
    usage_of,
    window_of,
)
from housecall.errors import (
    ConfigError,
    ContextLengthExceeded,
    EngineBusy,
    EngineError,
    EngineUnavailable,
)
from housecall.types import Chunk, FinishReason, Sampling, Usage


class RemoteEngine:
    """Answers with the server at ``url`` (with or without ``/v1``).

    ``key`` is sent as Bearer. ``model`` None takes the first one of its list. ``n_ctx`` is the
    window of one conversation, where the server does not say that it is shorter.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        model: str | None = None,
        n_ctx: int = 2048,
        parallel: int = 4,
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._model = model
        self._n_ctx = n_ctx
        self._parallel = parallel
        self._client: httpx.AsyncClient | None = None
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo:
        """What is running; valid after ``start``."""
        assert self._info is not None, "the engine was not started"
        return self._info

    @property
    def restarts(self) -> int:
        """Whoever runs it counts them."""
        return 0

    async def start(self) -> None:
        """Ask the server for its models. Raises EngineError, in one line, when it can't be used."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.AsyncClient(
            base_url=self._url,
            headers={**headers, "Content-Type": "application/json"},
            timeout=httpx.Timeout(None, connect=5.0),
            trust_env=False,
        )
        models = await self._models()
        model = next((m for m in models if self._model in (None, m["id"])), None)
        if model is None:
            names = ", ".join(str(m["id"]) for m in models) or "none"
            raise ConfigError(f"{self._url} has no model {self._model!r}: it has {names}")
        self._info = EngineInfo(
            name="remote",
            model=str(model["id"]),
            n_ctx=min(self._n_ctx, window_of(model) or self._n_ctx),
            parallel=self._parallel,
            chat_template=TEMPLATE,
            bos_token="",
            eos_token=END,
            eog_ids=frozenset({control(END)}),
        )

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def ready(self) -> bool:
        """True when the server lists its models, within a second."""
        if self._client is None or self._info is None:
            return False
        try:
            return (await self._client.get("/v1/models", timeout=1.0)).is_success
        except httpx.TransportError:
            return False

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Runs of characters as numbers; control tokens only with ``special``."""
        ids: list[int] = []
        while text:
            found = next((c for c in CONTROL if special and text.startswith(c)), None)
            if found:
                ids.append(control(found))
                text = text.removeprefix(found)
                continue
            ends = [text.find(c) for c in CONTROL if special and c in text]
            run, text = text[: min(ends, default=len(text))], text[min(ends, default=len(text)) :]
            ids += [pack(run[i : i + CHARACTERS]) for i in range(0, len(run), CHARACTERS)]
        return ids

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Generate from what ``tokenize`` made; closing the stream closes the connection.

        Raises ContextLengthExceeded, EngineBusy, EngineUnavailable and EngineError.
        """
        if self._client is None:
            raise EngineUnavailable("the engine is not running: try again in a few seconds")
        room = self.info.n_ctx - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(len(prompt), self.info.n_ctx)
        path, body = request_for(self.info.model, prompt, sampling, room)
        finish: FinishReason = "stop"
        usage = Usage(prompt_tokens=len(prompt))
        try:
            async with self._client.stream("POST", path, content=encode(body)) as response:
                if not response.is_success:
                    raise self._refusal(response.status_code, await response.aread(), len(prompt))
                async for line in lines_of(response.aiter_bytes()):
                    field, _, data = line.partition(":")
                    if field != "data":
                        continue
                    if data.strip() == "[DONE]":
                        yield Chunk("", (), finish, usage)
                        return
                    event = json.loads(data)
                    if "error" in event:
                        raise EngineError(f"{self._url} failed: {message_of(event)}")
                    usage = usage_of(event.get("usage")) or usage
                    for choice in event.get("choices", ()):
                        finish = "length" if choice.get("finish_reason") == "length" else finish
                        text = choice.get("text") or choice.get("delta", {}).get("content")
                        scores = scores_of(choice)
                        if text or scores:
                            yield Chunk(text or "", (pack((text or " ")[:1]),), scores=scores)
        except httpx.TransportError as error:
            raise EngineUnavailable(f"{self._url} does not answer: try again later") from error
        raise EngineUnavailable(f"{self._url} ended its answer too early: try again")

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """The other server's vector of a text, made length 1."""
        if self._client is None:
            raise EngineUnavailable("the engine is not running: try again in a few seconds")
        body = {"model": self.info.model, "input": text_of(ids), "encoding_format": "float"}
        try:
            response = await self._client.post("/v1/embeddings", content=encode(body))
        except httpx.TransportError as error:
            raise EngineUnavailable(f"{self._url} does not answer: try again later") from error
        if not response.is_success:
            raise self._refusal(response.status_code, response.content, len(ids))
        try:
            return unit(response.json()["data"][0]["embedding"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise EngineError(f"{self._url} answered with no embedding") from None

    async def _models(self) -> list[dict[str, Any]]:
        assert self._client is not None
        try:
            response = await self._client.get("/v1/models", timeout=10.0)
            models: list[dict[str, Any]] = response.raise_for_status().json()["data"]
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise EngineError(f"{self._url}/v1/models answers {status}: check the key") from None
        except httpx.HTTPError as error:
            raise EngineError(f"{self._url} does not answer: {error}") from None
        except (ValueError, KeyError, TypeError):
            raise EngineError(f"{self._url} is no OpenAI-compatible server") from None
        return models

    def _refusal(self, status: int, body: bytes, length: int) -> EngineError | Exception:
        try:
            error = json.loads(body)
        except ValueError:
            error = {}
        message = message_of(error) or f"status {status}"
        if status == 400 and "context" in message.lower():
            return ContextLengthExceeded(length, self.info.n_ctx)
        if status == 429:
            return EngineBusy(f"{self._url} is busy: try again in a moment")
        if status >= 500:
            return EngineUnavailable(f"{self._url} failed: {message}")
        return EngineError(f"{self._url} refused the request: {message}")
