"""Transformers models from a local folder, bitsandbytes int8 and NF4 ones too."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from housecall.engines.base import END_OF_GENERATION, EngineInfo, unit
from housecall.engines.stop import StopStrings
from housecall.errors import (
    ConfigError,
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
)
from housecall.types import Chunk, FinishReason, Sampling, Usage


class HfEngine:
    """Runs a folder of transformers on this machine, one stream at a time.

    For gates and benchmarks; serving wants ``LlamaEngine``. ``dtype`` is the name of a torch
    type. None is bfloat16 on a processor, which reads prompts 7 times as fast as float16 there but
    rounds more (float32 gives float16's texts), and on a GPU or for a quantised model what the
    folder was stored in. There is no ``json_schema`` here, and there are no log-probabilities.
    """

    def __init__(self, folder: Path, *, n_ctx: int = 2048, dtype: str | None = None) -> None:
        self._folder = folder
        self._n_ctx = n_ctx
        self._dtype = dtype
        self._model: Any = None
        self._tokenizer: Any = None
        self._info: EngineInfo | None = None
        self._slot = asyncio.Semaphore(1)
        self._closed = threading.Event()

    @property
    def info(self) -> EngineInfo:
        """What is running; valid after ``start``."""
        assert self._info is not None, "the engine was not started"
        return self._info

    @property
    def restarts(self) -> int:
        """It runs in this process."""
        return 0

    async def start(self) -> None:
        """Load the model. Raises EngineError when the folder can't be loaded."""
        async with self._slot:
            await asyncio.to_thread(self._load)

    async def close(self) -> None:
        """End what is running and let go of the model."""
        self._closed.set()
        async with self._slot:
            self._model = None

    async def ready(self) -> bool:
        """True between ``start`` and ``close``."""
        return self._model is not None and not self._closed.is_set()

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``; control tokens are single ids only with ``special``."""
        self._check_running()
        # Half a surrogate pair, which JSON can bring in, is no text for the tokenizer.
        text = text.encode("utf-8", "replace").decode()
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=not special
        )
        return ids

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """Generate from token ids; closing the stream ends the computation.

        Raises ContextLengthExceeded, ConfigError for a ``json_schema`` or ``top_logprobs``,
        EngineUnavailable and EngineError.
        """
        self._check_running()
        for name in ("json_schema", "top_logprobs"):
            if getattr(sampling, name) is not None:
                raise ConfigError(f"the engine hf knows no {name}: serve a GGUF variant instead")
        if len(prompt) >= self.info.n_ctx:
            raise ContextLengthExceeded(len(prompt), self.info.n_ctx)
        async with self._slot:
            self._check_running()
            loop = asyncio.get_running_loop()
            chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
            cancelled = threading.Event()

            def send(chunk: Chunk | None) -> None:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

            work = loop.run_in_executor(None, self._work, prompt, sampling, cancelled, send)
            try:
                while chunk := await chunks.get():
                    yield chunk
                await work
            finally:
                cancelled.set()
                await asyncio.wait([work])

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """A vector for a text. Raises ContextLengthExceeded and EngineUnavailable."""
        self._check_running()
        if len(ids) > self.info.n_ctx:
            raise ContextLengthExceeded(len(ids), self.info.n_ctx)
        async with self._slot:
            self._check_running()
            from housecall.engines.hf_generate import mean_state

            return unit(await asyncio.to_thread(mean_state, self._model, ids))

    def _work(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        cancelled: threading.Event,
        send: Callable[[Chunk | None], None],
    ) -> None:
        """Generate in a thread of its own; None is sent when nothing more comes."""
        try:
            self._generate(prompt, sampling, cancelled, send)
        except (RuntimeError, IndexError) as error:
            raise EngineError(f"the engine hf failed to generate: {error}") from error
        finally:
            send(None)

    def _generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        cancelled: threading.Event,
        send: Callable[[Chunk | None], None],
    ) -> None:
        from housecall.engines.hf_generate import TextDecoder, generate

        def ended() -> bool:
            return cancelled.is_set() or self._closed.is_set()

        shown = StopStrings(sampling.stop)
        decoder = TextDecoder(self._tokenizer, prompt)
        room = min(sampling.max_tokens, self.info.n_ctx - len(prompt))
        finish: FinishReason | None = None
        tokens = enumerate(generate(self._model, prompt, sampling, ended), 1)
        for count, token in tokens:
            stops = token in self.info.eog_ids
            send(Chunk("" if stops else shown.push(decoder.push(token)), (token,)))
            finish = "stop" if stops or shown.found else "length" if count >= room else None
            if finish:
                send(Chunk(shown.flush(), (), finish, Usage(len(prompt), count)))
                return
        if self._closed.is_set():
            raise EngineUnavailable("the engine was closed while it was answering")

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        settings = self._folder / "config.json"
        if not settings.is_file():
            raise EngineError(f"{self._folder} holds no transformers model: no config.json there")
        try:
            quantised = "quantization_config" in json.loads(settings.read_text("utf-8"))
            plain_on_cpu = not quantised and not torch.cuda.is_available()
            model = AutoModelForCausalLM.from_pretrained(
                self._folder,
                dtype=self._dtype or ("bfloat16" if plain_on_cpu else "auto"),
                device_map="auto" if torch.cuda.is_available() else "cpu",
                local_files_only=True,
                trust_remote_code=False,
            )
            self._tokenizer = AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise EngineError(f"the engine hf could not load {self._folder}: {error}") from error
        self._model = model.eval()
        self._info = self._read_info()

    def _read_info(self) -> EngineInfo:
        tokenizer, config = self._tokenizer, self._model.config
        return EngineInfo(
            name="hf",
            model=self._folder.name,
            n_ctx=min(self._n_ctx, config.max_position_embeddings),
            parallel=1,
            chat_template=tokenizer.chat_template or "",
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
            eog_ids=self._end_of_generation_ids(),
            prefix=self._prefix(),
        )

    def _prefix(self) -> tuple[int, ...]:
        """BOS where the tokenizer puts it before a text."""
        ids: list[int] = self._tokenizer("x").input_ids
        return tuple(ids[:1]) if ids[0] == self._tokenizer.bos_token_id else ()

    def _end_of_generation_ids(self) -> frozenset[int]:
        """Those the folder names, and the known end tokens among its control tokens."""
        named = self._model.generation_config.eos_token_id
        ids = {named} if isinstance(named, int) else set(named or ())
        control = {str(token): i for i, token in self._tokenizer.added_tokens_decoder.items()}
        ends = (self._tokenizer.eos_token, *END_OF_GENERATION)
        return frozenset(ids | {control[text] for text in ends if text in control})

    def _check_running(self) -> None:
        if self._model is None or self._closed.is_set():
            raise EngineUnavailable("the engine hf is not running: start it first")
