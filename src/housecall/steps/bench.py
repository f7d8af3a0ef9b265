"""bench: how fast each variant answers on this machine, one model at a time.

Folders run through transformers, GGUF files through the serving engine. A figure is the median
over all repeats; the first answer of each model warms it up and is not counted.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, Journal, create, write_json
from housecall.causal_lm import read_dialogues
from housecall.chat_template import encode
from housecall.config import BenchConfig
from housecall.engines import engine_class
from housecall.engines.base import Engine
from housecall.lineage import GGUF_FILE
from housecall.machine import cpu_count
from housecall.progress import Bar, bar
from housecall.steps.base import HfTokenizer, load_template
from housecall.types import Sampling

_CTX = 2048


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer: seconds to its first token, and tokens a second after it."""

    first_token: float
    decode_rate: float


def run(
    config: BenchConfig, variants: Sequence[Artifact], dataset: Artifact, out: Path
) -> Artifact:
    """Measure all variants on prompts of the test split."""
    settings = config.model_dump(mode="json")
    parents = [dataset, *variants]
    journal = Journal(out, [settings, [p.sha256 for p in parents]])
    prompts = _prompts(config, variants[0], dataset)
    with create(out, "bench", config=settings, parents=parents) as draft:
        answers = len(variants) * (config.prompts * config.repeats + 1)
        with bar("bench", answers) as progress:
            for variant in variants:
                name = variant.path.name
                progress.advance(0, name)
                if journal.get(name) is None:
                    journal.put(name, asyncio.run(_measure(config, variant, prompts, progress)))
                else:
                    progress.advance(config.prompts * config.repeats + 1)
        report = [journal.get(variant.path.name) for variant in variants]
        write_json(draft.path / "report.json", report)
        draft.metrics |= {
            "variants": report,
            "threads": cpu_count(),
            "prompt_tokens": [len(prompt) for prompt in prompts],
        }
    journal.forget()
    return Artifact.load(out, verify=False)


def _prompts(config: BenchConfig, variant: Artifact, dataset: Artifact) -> list[list[int]]:
    """The questions of the first dialogues of the test split, as token ids."""
    merged = next(p for p in variant.parents() if p.kind == "merged")
    tokenizer = HfTokenizer(merged.path)
    template = load_template(merged.path, tokenizer)
    questions = [
        dialogue[: next(i for i, m in enumerate(dialogue) if m.role == "user") + 1]
        for dialogue in read_dialogues(dataset.path / "test.jsonl")[: config.prompts]
    ]
    return [encode(template.segments(q, add_generation_prompt=True), tokenizer) for q in questions]


async def _measure(
    config: BenchConfig, variant: Artifact, prompts: Sequence[Sequence[int]], progress: Bar
) -> dict[str, Any]:
    sampling = Sampling(max_tokens=config.new_tokens, temperature=0.0)
    started = time.perf_counter()
    engine = _engine(variant)
    try:
        await engine.start()
        load = time.perf_counter() - started
        await _time_answer(engine, prompts[0], sampling)
        progress.advance()
        timings = []
        for prompt in [p for _ in range(config.repeats) for p in prompts]:
            timings.append(await _time_answer(engine, prompt, sampling))
            progress.advance()
    finally:
        await engine.close()
    rates = [t.decode_rate for t in timings]
    return {
        "format": variant.path.name,
        "engine": engine.info.name,
        "load_seconds": round(load, 3),
        "first_token_seconds": statistics.median(t.first_token for t in timings),
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_range": [min(rates), max(rates)],
    }


def _engine(variant: Artifact) -> Engine:
    if variant.path.name.startswith("gguf-"):
        engine: Engine = engine_class("llama")(
            variant.path / GGUF_FILE, n_ctx=_CTX, parallel=1, prompt_cache_mib=0
        )
    else:
        engine = engine_class("hf")(variant.path, n_ctx=_CTX)
    return engine


async def _time_answer(engine: Engine, prompt: Sequence[int], sampling: Sampling) -> Timing:
    started = time.perf_counter()
    first = last = started
    tokens = 0
    async for chunk in engine.stream(prompt, sampling):
        last = time.perf_counter()
        first = last if tokens == 0 and chunk.text else first
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens + len(chunk.ids)
    seconds = max(last - first, 1e-9)
    return Timing(first - started, max(tokens - 1, 0) / seconds)
