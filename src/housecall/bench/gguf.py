"""A GGUF file, measured in a child process of the serving engine, as ``serve`` would run it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil

from housecall.bench.base import (
    PIECE_ANSWER,
    PIECE_LOADED,
    LetterQuestion,
    Prompt,
    Streamed,
    Tell,
    Together,
    Visit,
    Whole,
    Work,
)
from housecall.checks.engine import next_token
from housecall.engines.llama_file import check_file
from housecall.engines.llama_process import LlamaConfig, LlamaProcess
from housecall.engines.llama_wire import encode, error_from, lines_of
from housecall.engines.tuning import Tuning
from housecall.errors import EngineError
from housecall.gguf.header import read_header

_SLOT = 256  # the engine rounds a window up to this


def visit_gguf(file: Path, work: Work, tell: Tell, tuning: Tuning) -> Visit:
    """Load, warm up, time, answer, score. Raises HousecallError when the file can't be run."""
    return asyncio.run(_visit(file, work, tell, tuning))


async def _visit(file: Path, work: Work, tell: Tell, tuning: Tuning) -> Visit:
    config = LlamaConfig(
        model=str(file),
        n_ctx=-(-work.window // _SLOT) * _SLOT,
        parallel=max(work.batches, default=1),
        threads=tuning.threads or work.threads,
        gpu_layers=0,
        cache_reuse=False,
        prompt_cache_mib=0,
        tuning=tuning,
    )
    check_file(file)
    started = time.perf_counter()
    async with open_engine(config) as engine:
        loaded = time.perf_counter() - started
        for prompt in (work.speed or work.answers)[:1]:
            await engine.stream(prompt.ids, min(4, work.new_tokens))
        tell(PIECE_LOADED)
        whole, streamed, together = [], [], []
        for prompt in work.speed:
            whole.append(await engine.whole(prompt.ids, work.new_tokens))
            streamed.append(await engine.stream(prompt.ids, work.new_tokens))
            tell(PIECE_ANSWER)
        for size in work.batches:
            together.append(await _together(engine, work.together[:size], work.new_tokens))
            tell(f"batch {size}")
        answers = [await engine.answer(p.ids, work.answer_tokens) for p in work.answers]
        if answers:
            tell("answers")
        letters = await _letters(engine, work.letters)
        if letters:
            tell("questions")
        process = psutil.Process(engine.pid)
        return Visit(
            engine="llama.cpp",
            settings=asdict(config) | {"model": file.name},
            computes_in="its own quantised types",
            load_seconds=loaded,
            whole=whole,
            streamed=streamed,
            together=together,
            token_bytes=token_bytes(file),
            peak_memory_bytes=_peak_memory(process),
            peak_gpu_bytes=0,
            cpu_seconds=sum(process.cpu_times()[:2]),
            answers=answers or None,
            letters=letters or None,
        )


class RunningEngine:
    """The engine's child, asked in its own terms; a prompt that is timed is read anew."""

    def __init__(self, client: httpx.AsyncClient, pid: int) -> None:
        self._client = client
        self.pid = pid

    async def probe(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One whole completion. Raises EngineError."""
        response = await self._client.post("/completion", content=encode(body))
        answer: dict[str, Any] = response.json()
        if not response.is_success:
            raise error_from(answer)
        return answer

    async def whole(self, ids: Sequence[int], count: int) -> Whole:
        """An answer in one piece."""
        started = time.perf_counter()
        answer = await self.probe(_timed(ids, count))
        seconds = time.perf_counter() - started
        timings = answer["timings"]
        own = (timings["prompt_ms"] + timings["predicted_ms"]) / 1000
        return Whole(answer["tokens_predicted"], seconds, own)

    async def stream(self, ids: Sequence[int], count: int) -> Streamed:
        """An answer token by token."""
        arrivals: list[float] = []
        body = {**_timed(ids, count), "stream": True, "return_tokens": True}
        started = time.perf_counter()
        async with self._client.stream("POST", "/completion", content=encode(body)) as response:
            async for line in lines_of(response.aiter_bytes()):
                now = time.perf_counter() - started
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise error_from(event)
                # Of a character made of several tokens the engine reports the last one only.
                arrivals += [now] * len(event.get("tokens", ()))
                if event["stop"]:
                    own = event["timings"]["predicted_ms"] / 1000
                    read, made = event["tokens_evaluated"], event["tokens_predicted"]
                    return Streamed(read, made, arrivals, own)
        raise EngineError("the engine ended an answer too early")

    async def answer(self, ids: Sequence[int], count: int) -> str:
        """A greedy answer to read."""
        body = {"prompt": list(ids), "n_predict": count, "temperature": 0, "cache_prompt": True}
        return str((await self.probe(body))["content"]).strip()

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without control tokens."""
        body = {"content": text, "add_special": False, "parse_special": False}
        response = await self._client.post("/tokenize", content=encode(body))
        ids: list[int] = response.raise_for_status().json()["tokens"]
        return ids


@asynccontextmanager
async def open_engine(config: LlamaConfig) -> AsyncIterator[RunningEngine]:
    """The engine's child with a model, ready to answer."""
    process = LlamaProcess(config)
    try:
        await process.start()
        headers = {"Authorization": f"Bearer {process.key}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(
            base_url=process.address,
            headers=headers,
            timeout=None,
            limits=httpx.Limits(max_keepalive_connections=0),  # as engines/llama.py: use each once
            trust_env=False,
        ) as client:
            while not (await client.get("/health")).is_success:
                await asyncio.sleep(0.01)
            assert process.pid is not None
            yield RunningEngine(client, process.pid)
    except httpx.TransportError as error:
        raise EngineError(f"the engine died while it answered with {config.model}") from error
    finally:
        await process.stop()


def token_bytes(file: Path) -> int:
    """Bytes of weights that one new token needs: all, but of a table of its own one row."""
    tensors = {tensor.name: tensor.nbytes for tensor in read_header(file).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return sum(tensors.values())


def _timed(ids: Sequence[int], count: int) -> dict[str, Any]:
    """A greedy answer of exactly so many tokens, with nothing of the prompt known before."""
    return {
        "prompt": list(ids),
        "n_predict": count,
        "temperature": 0,
        "top_k": 1,
        "ignore_eos": True,
        "cache_prompt": False,
    }


async def _together(engine: RunningEngine, prompts: Sequence[Prompt], count: int) -> Together:
    started = time.perf_counter()
    done = await asyncio.gather(*(engine.whole(p.ids, count) for p in prompts))
    return Together(len(prompts), sum(w.tokens for w in done), time.perf_counter() - started)


async def _letters(engine: RunningEngine, questions: Sequence[LetterQuestion]) -> list[int]:
    """Of each question the option whose letter is the likeliest next token."""
    if not questions:
        return []
    whole_character = (await engine.tokenize("a"))[-1]
    chosen = []
    for question in questions:
        scores = await next_token(engine, question.ids, whole_character)
        # A letter that is not even among the engine's top tokens comes last.
        likelihoods = [scores.get(token, float("-inf")) for token in question.letters]
        chosen.append(max(range(len(likelihoods)), key=likelihoods.__getitem__))
    return chosen


def _peak_memory(process: psutil.Process) -> int | None:
    """Most memory a living process had resident, in bytes, where the system tells it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return getattr(process.memory_info(), "peak_wset", None)
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
