"""The serving engine: llama.cpp's own server in a supervised child process."""

from __future__ import annotations

import asyncio
import json
import logging
import unicodedata
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from housecall.engines.base import END_OF_GENERATION, EngineInfo
from housecall.engines.llama_client import LlamaClient, started
from housecall.engines.llama_embedder import LlamaEmbedder
from housecall.engines.llama_file import check_file
from housecall.engines.llama_process import LlamaConfig, LlamaProcess
from housecall.engines.llama_wire import compact, completion_request, parse_event
from housecall.engines.tuning import Tuning
from housecall.errors import ConfigError, ContextLengthExceeded, EngineError, EngineUnavailable
from housecall.machine import cpu_count
from housecall.types import Chunk, Sampling

_log = logging.getLogger(__name__)

_FIRST_DELAY = 0.5  # seconds before a child that died is started again
_LONGEST_DELAY = 30.0
_STABLE_AFTER = 60.0  # a child that lived this long starts the back-off anew


class LlamaEngine:
    """Runs a GGUF file with llama.cpp on this machine.

    ``n_ctx`` is the window of one conversation in tokens, of which ``parallel`` are answered at
    once; further streams wait their turn. ``threads`` None takes the cores this process may use.
    ``cache_reuse`` lets the engine shift its cache when old turns are dropped, which is faster
    and an approximation. ``prompt_cache_mib`` of memory keep conversations that lost their slot.
    ``cache_prompt`` False reads every prompt anew: with one slot, a request then gives one text.

    A child that dies is started again with growing delays; until then streams and tokenising
    raise EngineUnavailable. Of a character made of several tokens, ``Chunk.ids`` has the last
    one only (the engine reports no more); ``usage`` counts all.
    """

    def __init__(
        self,
        model: Path,
        *,
        n_ctx: int = 2048,
        parallel: int = 4,
        threads: int | None = None,
        gpu_layers: int = 0,
        cache_reuse: bool = False,
        prompt_cache_mib: int = 512,
        cache_prompt: bool = True,
        tuning: Tuning | None = None,
    ) -> None:
        self._config = LlamaConfig(
            model=str(model),
            n_ctx=n_ctx,
            parallel=parallel,
            threads=threads or cpu_count(),
            gpu_layers=gpu_layers,
            cache_reuse=cache_reuse,
            prompt_cache_mib=prompt_cache_mib if cache_prompt else 0,
            tuning=tuning or Tuning(),
        )
        self._cache_prompt = cache_prompt
        self._embedder = LlamaEmbedder(self._config)
        self._process: LlamaProcess | None = None
        self._client: LlamaClient | None = None
        self._info: EngineInfo | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._slots = asyncio.Semaphore(parallel)
        self._form: Literal["NFC"] | None = None
        self._template_ids: dict[str, list[int]] = {}
        self._good_schemas: set[str] = set()
        self._restarts = 0
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """What is running; valid after ``start``."""
        assert self._info is not None, "the engine was not started"
        return self._info

    @property
    def restarts(self) -> int:
        """How often the child died and was started again."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """Process id of the child, to look at it from outside."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child, load the model and wait until it answers.

        Raises ArtifactError for a file that native code is not given, and EngineError, with the
        child's own words, when the model can't be loaded.
        """
        self._form = await asyncio.to_thread(check_file, Path(self._config.model))
        await self._launch()
        self._info = await self._read_info()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the child and its supervision."""
        self._closed = True
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        if self._process:
            await self._process.stop()
        await self._embedder.close()
        self._client = None

    async def ready(self) -> bool:
        """True when the child says that it is healthy, within a second."""
        return self._client is not None and await self._client.healthy()

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``; control tokens are single ids only with ``special``."""
        # Only a template's own few texts are tokenised with ``special``: no user's text is kept.
        if special and text in self._template_ids:
            return list(self._template_ids[text])
        content = unicodedata.normalize(self._form, text) if self._form else text
        body = {"content": content, "add_special": False, "parse_special": special}
        ids: list[int] = (await self._connection().request("POST", "/tokenize", body))["tokens"]
        if special and len(self._template_ids) < 1024:
            self._template_ids[text] = list(ids)
        return ids

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Generate from token ids; closing the stream frees the engine's slot.

        Raises ContextLengthExceeded, ConfigError for a JSON schema that the engine can't hold an
        answer to, EngineUnavailable when the engine is down or dies, and EngineError.
        """
        room = self.info.n_ctx - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(len(prompt), self.info.n_ctx)
        body = completion_request(prompt, sampling, room, cache=self._cache_prompt)
        async with self._slots:
            if sampling.json_schema is not None:
                await self._check_schema(sampling.json_schema)
            async with aclosing(self._connection().stream("/completion", body)) as lines:
                async for line in lines:
                    if chunk := parse_event(line, sampling.top_logprobs or 0):
                        yield chunk
                    if chunk and chunk.finish_reason:
                        return

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """A vector for a text, made in a child of its own that the first call starts."""
        if self._closed:
            raise EngineUnavailable("the engine is closed")
        return await self._embedder.embed(ids)

    async def probe(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One whole completion in the engine's own terms: to examine a model, not to serve it."""
        answer: dict[str, Any] = await self._connection().request("POST", "/completion", body)
        return answer

    async def _check_schema(self, schema: Mapping[str, Any]) -> None:
        """Find out whether the engine enforces ``schema``: one that it can't read it ignores.

        No JSON begins with ``@``, so an engine that is told to prefer it shows whether it is held
        to anything.
        """
        text = json.dumps(schema, sort_keys=True)
        if text in self._good_schemas:
            return
        at_sign = (await self.tokenize("@", special=False))[-1]
        body = {
            "prompt": [at_sign],
            "n_predict": 1,
            "temperature": 0,
            "logit_bias": [[at_sign, 1000]],
            "json_schema": compact(schema),
            "cache_prompt": False,
        }
        if "@" in (await self._connection().request("POST", "/completion", body))["content"]:
            raise ConfigError(
                "the engine can't hold an answer to this json_schema: check its types and $refs, "
                "or leave out the less common keywords"
            )
        if len(self._good_schemas) < 1024:
            self._good_schemas.add(text)

    def _connection(self) -> LlamaClient:
        if self._client is None:
            raise EngineUnavailable("the engine is not running: try again in a few seconds")
        return self._client

    async def _launch(self) -> None:
        self._process = process = LlamaProcess(self._config)
        try:
            self._client = await started(process)
        except EngineError as error:
            if self._closed:
                raise EngineUnavailable("the engine was closed while it was starting") from error
            raise

    async def _supervise(self) -> None:
        """Start the child again whenever it dies."""
        delay = _FIRST_DELAY
        started = monotonic()
        while self._process:
            code = await self._process.wait()
            self._client = None
            if monotonic() - started > _STABLE_AFTER:
                delay = _FIRST_DELAY
            _log.error("the engine died (exit code %s); starting it again in %s s", code, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
            started = monotonic()
            self._restarts += 1
            try:
                await self._launch()
            except EngineError as error:
                _log.error("%s", error)

    async def _read_info(self) -> EngineInfo:
        props = await self._connection().request("GET", "/props")
        return EngineInfo(
            name="llama",
            model=Path(self._config.model).name,
            # The engine rounds up to a multiple of 256 and down to what the model was trained on.
            n_ctx=min(self._config.n_ctx, props["default_generation_settings"]["n_ctx"]),
            parallel=self._config.parallel,
            chat_template=props["chat_template"],
            bos_token=props["bos_token"],
            eos_token=props["eos_token"],
            eog_ids=await self._end_of_generation_ids(props["eos_token"]),
            prefix=await self._prefix(),
        )

    async def _prefix(self) -> tuple[int, ...]:
        body = {"content": "", "add_special": True}
        return tuple((await self._connection().request("POST", "/tokenize", body))["tokens"])

    async def _end_of_generation_ids(self, eos_token: str) -> frozenset[int]:
        """Ids of those end tokens that this model has as control tokens."""
        found = set()
        for text in (eos_token, *END_OF_GENERATION):
            ids = await self.tokenize(text, special=True)
            if len(ids) == 1 and ids != await self.tokenize(text, special=False):
                found.add(ids[0])
        return frozenset(found)
