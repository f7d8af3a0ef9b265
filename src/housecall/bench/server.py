"""Any OpenAI-compatible server (llama-server, Ollama, vLLM), measured with the same prompts.

Of a server only what it sends is known: no memory, no file size, no load time. It may end an
answer early and may know a prompt from before. So a question that is timed begins with a number of
its own unless the server can be told to read all anew, what it says that it knew is not counted as
read, and a rate counts the tokens that came.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from housecall.bench.base import (
    PIECE_ANSWER,
    PIECE_LOADED,
    Prompt,
    Streamed,
    Tell,
    Together,
    Visit,
    Whole,
    Work,
)
from housecall.engines.llama_wire import encode, lines_of
from housecall.errors import ConfigError, EngineError

# Fields that are not OpenAI's: a server that refuses them is asked without.
_EXACT: dict[str, Any] = {"ignore_eos": True, "cache_prompt": False, "top_k": 1}


def visit_server(url: str, work: Work, tell: Tell, *, key: str = "", model: str = "") -> Visit:
    """Warm up, time, answer. Raises HousecallError when the server does not answer as it should."""
    return asyncio.run(_visit(url, work, tell, key, model))


async def _visit(url: str, work: Work, tell: Tell, key: str, model: str) -> Visit:
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(
        base_url=base,
        headers={**headers, "Content-Type": "application/json"},
        timeout=httpx.Timeout(None, connect=5.0),
        # llama.cpp's server drops a connection after a stream without saying so: use each once.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    ) as client:
        try:
            server = Server(client, base, model or await _first_model(client, base))
            return await _measure(server, work, tell)
        except httpx.HTTPError as error:
            raise EngineError(f"{base} does not answer: {error}") from error


class Server:
    """One model of an OpenAI-compatible server."""

    def __init__(self, client: httpx.AsyncClient, base: str, model: str) -> None:
        self._client = client
        self._base = base
        self._exact = dict(_EXACT)
        self._asked = 0
        self.model = model

    async def learn_what_it_takes(self, prompt: Prompt) -> None:
        """Ask once, also to warm it up; without the fields it refuses, if it refuses them."""
        try:
            await self.stream(prompt, 4)
        except _FieldRefused:
            self._exact = {}
            await self.stream(prompt, 4)

    async def whole(self, prompt: Prompt, count: int) -> Whole:
        """An answer in one piece."""
        started = time.perf_counter()
        answer = await self._ask(self._timed(prompt, count))
        return Whole(answer["usage"]["completion_tokens"], time.perf_counter() - started)

    async def text(self, prompt: Prompt, count: int) -> str:
        """A greedy answer to read, ended where the model ends it."""
        body = self._body(prompt, count)
        body.pop("ignore_eos", None)
        answer = await self._ask(body)
        return str(answer["choices"][0]["message"]["content"] or "").strip()

    async def stream(self, prompt: Prompt, count: int) -> Streamed:
        """An answer piece by piece."""
        body = self._timed(prompt, count) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        arrivals: list[float] = []
        usage: dict[str, Any] = {}
        started = time.perf_counter()
        path = "/v1/chat/completions"
        async with self._client.stream("POST", path, content=encode(body)) as response:
            if not response.is_success:
                raise self._refusal(response.status_code, await response.aread())
            async for line in lines_of(response.aiter_bytes()):
                now = time.perf_counter() - started
                data = line.partition("data:")[2].strip()
                if not data or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise EngineError(f"{self._base} failed: {event['error']}")
                usage = event.get("usage") or usage
                deltas = [c.get("delta", {}) for c in event.get("choices", ())]
                arrivals += [now for d in deltas if d.get("content") or d.get("reasoning_content")]
        tokens = usage.get("completion_tokens") or len(arrivals)
        known = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        read = (usage.get("prompt_tokens") or len(prompt.ids)) - known
        return Streamed(max(1, read), tokens, arrivals)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._client.post("/v1/chat/completions", content=encode(body))
        if not response.is_success:
            raise self._refusal(response.status_code, response.content)
        answer: dict[str, Any] = response.json()
        return answer

    def _timed(self, prompt: Prompt, count: int) -> dict[str, Any]:
        """The body for a question that this server has not read before."""
        if not self._exact:
            self._asked += 1
            prompt = replace(prompt, text=f"No. {self._asked}: {prompt.text}")
        return self._body(prompt, count)

    def _body(self, prompt: Prompt, count: int) -> dict[str, Any]:
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        return {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": prompt.text}],
            "max_tokens": count,
            "temperature": 0,
            **self._exact,
        }

    def _refusal(self, status: int, body: bytes) -> EngineError:
        said = " ".join(body.decode("utf-8", "replace").split())[:300]
        message = f"{self._base} answers {status}: {said or 'nothing else'}"
        fits = self._exact and status in (400, 422)
        return _FieldRefused(message) if fits else EngineError(message)


class _FieldRefused(EngineError):
    """The request was refused, perhaps for a field that OpenAI does not have."""


async def _measure(server: Server, work: Work, tell: Tell) -> Visit:
    await server.learn_what_it_takes(work.speed[0])
    tell(PIECE_LOADED)
    whole, streamed, together = [], [], []
    for prompt in work.speed:
        whole.append(await server.whole(prompt, work.new_tokens))
        streamed.append(await server.stream(prompt, work.new_tokens))
        if not streamed[-1].arrivals:
            raise EngineError(f"model {server.model} of the server said nothing: try another")
        tell(PIECE_ANSWER)
    for size in work.batches:
        together.append(await _together(server, work.together[:size], work.new_tokens))
        tell(f"batch {size}")
    answers = [await server.text(p, work.answer_tokens) for p in work.answers]
    if answers:
        tell("answers")
    return Visit(
        engine=f"server, model {server.model}",
        settings={},
        computes_in="not known",
        load_seconds=None,
        whole=whole,
        streamed=streamed,
        together=together,
        token_bytes=None,
        peak_memory_bytes=None,
        peak_gpu_bytes=None,
        cpu_seconds=None,
        answers=answers or None,
    )


async def _together(server: Server, prompts: Sequence[Prompt], count: int) -> Together:
    started = time.perf_counter()
    done = await asyncio.gather(*(server.whole(p, count) for p in prompts))
    return Together(len(prompts), sum(w.tokens for w in done), time.perf_counter() - started)


async def _first_model(client: httpx.AsyncClient, base: str) -> str:
    response = await client.get("/v1/models", timeout=10.0)
    if not response.is_success:
        raise EngineError(f"{base}/v1/models answers {response.status_code}: check URL and key")
    try:
        models = response.json()["data"]
        return str(models[0]["id"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise ConfigError(f"{base} is no OpenAI-compatible server with a model") from None
