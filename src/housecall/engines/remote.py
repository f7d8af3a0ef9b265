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
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx

from housecall.engines.base import EngineInfo
from housecall.engines.llama_wire import encode, lines_of
from housecall.errors import (
    ConfigError,
    ContextLengthExceeded,
    EngineBusy,
    EngineError,
    EngineUnavailable,
)
from housecall.types import Chunk, FinishReason, Sampling, Usage

_START, _END = "<|start|>", "<|end|>"
_TEMPLATE = (
    "{% for message in messages %}"
    f"{_START}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{_END}"
    "{% endfor %}"
)
_CONTROL = (_START, _END)
_CHARACTERS = 3  # in one token
_BITS = 21  # of a character
_MORE_THAN_ANY_TEXT = 1 << (_CHARACTERS * _BITS)


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
            n_ctx=min(self._n_ctx, _window(model) or self._n_ctx),
            parallel=self._parallel,
            chat_template=_TEMPLATE,
            bos_token="",
            eos_token=_END,
            eog_ids=frozenset({_control(_END)}),
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
            found = next((c for c in _CONTROL if special and text.startswith(c)), None)
            if found:
                ids.append(_control(found))
                text = text.removeprefix(found)
                continue
            ends = [text.find(c) for c in _CONTROL if special and c in text]
            run, text = text[: min(ends, default=len(text))], text[min(ends, default=len(text)) :]
            ids += [_pack(run[i : i + _CHARACTERS]) for i in range(0, len(run), _CHARACTERS)]
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
        body = _request(self.info.model, _messages(prompt), sampling, room)
        finish: FinishReason = "stop"
        usage = Usage(prompt_tokens=len(prompt))
        try:
            async with self._client.stream(
                "POST", "/v1/chat/completions", content=encode(body)
            ) as response:
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
                        raise EngineError(f"{self._url} failed: {_message(event)}")
                    usage = _usage(event.get("usage")) or usage
                    for choice in event.get("choices", ()):
                        finish = "length" if choice.get("finish_reason") == "length" else finish
                        if text := choice.get("delta", {}).get("content"):
                            yield Chunk(text, (_pack(text[:1]),))
        except httpx.TransportError as error:
            raise EngineUnavailable(f"{self._url} does not answer: try again later") from error
        raise EngineUnavailable(f"{self._url} ended its answer too early: try again")

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
        message = _message(error) or f"status {status}"
        if status == 400 and "context" in message.lower():
            return ContextLengthExceeded(length, self.info.n_ctx)
        if status == 429:
            return EngineBusy(f"{self._url} is busy: try again in a moment")
        if status >= 500:
            return EngineUnavailable(f"{self._url} failed: {message}")
        return EngineError(f"{self._url} refused the request: {message}")


def _request(
    model: str, messages: list[dict[str, str]], sampling: Sampling, room: int
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Not OpenAI's own, but known to vLLM and llama-server.
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
    }
    if sampling.repeat_penalty != 1.0:
        body |= dict.fromkeys(("repetition_penalty", "repeat_penalty"), sampling.repeat_penalty)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": dict(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _messages(prompt: Sequence[int]) -> list[dict[str, str]]:
    """The conversation that the template and ``tokenize`` made a prompt of."""
    texts: list[list[str]] = []
    for token in prompt:
        if token == _control(_START):
            texts.append([])
        elif token != _control(_END):
            texts[-1].append(_unpack(token))
    turns = ("".join(pieces).partition("\n") for pieces in texts)
    return [{"role": role, "content": content} for role, _, content in turns]


def _control(text: str) -> int:
    return _MORE_THAN_ANY_TEXT + _CONTROL.index(text)


def _pack(text: str) -> int:
    """Up to three characters as one number, above 0."""
    number = 0
    for character in text:
        number = number << _BITS | ord(character) + 1
    return number


def _unpack(number: int) -> str:
    characters = []
    while number:
        characters.append(chr((number & (1 << _BITS) - 1) - 1))
        number >>= _BITS
    return "".join(reversed(characters))


def _window(model: Mapping[str, Any]) -> int | None:
    """The window as vLLM or llama-server tell it, if they do."""
    meta = model.get("meta") or {}
    found = model.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
    return int(found) if found else None


def _usage(body: Mapping[str, Any] | None) -> Usage | None:
    if not body:
        return None
    details = body.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=body["prompt_tokens"],
        completion_tokens=body["completion_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
    )


def _message(body: Mapping[str, Any]) -> str:
    error = body.get("error", body)
    message = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(message or "").split())
