"""Finds the engine's settings that come nearest to the memory bandwidth of this machine.

One setting after the other, the rest as found so far. Each of its values is visited in rounds,
forth and back; another value is taken only when it is faster beyond the noise of those rounds.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from housecall.bench.gguf import open_engine, token_bytes
from housecall.bench.report import Limits
from housecall.bench.statistics import paired_ratio
from housecall.engines.llama_file import check_file
from housecall.engines.llama_process import LlamaConfig
from housecall.engines.tuning import Tuned, Tuning
from housecall.machine import cpu_count

ROUNDS = 5
_TOKENS = 48
_PROMPT = 32
DecodeRate = Callable[[Tuning], float]
"""Tokens a second that the engine decodes with such settings, in one visit."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of one setting: tokens a second in each round, and whether it was taken."""

    setting: str
    value: Any
    tuning: Tuning
    rates: list[float]
    taken: bool


def candidates(cores: int) -> Iterator[tuple[str, list[Any]]]:
    """The settings in the order in which they are tried, each with the values beside its default.

    The cache's type is not among them: a smaller one changes the answers that the gate has judged.
    """
    fewer = sorted({cores // 2, cores - 1} - {0, cores}, reverse=True)
    if fewer:
        yield "threads", fewer
    yield "repack", [False]
    yield "map_file", [False]
    yield "flash_attention", [False]


def tries(cores: int) -> int:
    """How many visits a search makes."""
    return ROUNDS * sum(1 + len(values) for _, values in candidates(cores))


def search(rate: DecodeRate, cores: int, rounds: int = ROUNDS) -> tuple[Tuning, list[Trial]]:
    """The best settings, and every trial on the way."""
    best = Tuning()
    trials: list[Trial] = []
    for setting, values in candidates(cores):
        options = [best, *(replace(best, **{setting: value}) for value in values)]
        rates: list[list[float]] = [[] for _ in options]
        for number in range(rounds):
            order = range(len(options)) if number % 2 == 0 else reversed(range(len(options)))
            for place in order:
                rates[place].append(rate(options[place]))
        medians = [statistics.median(found) for found in rates]
        winner = medians.index(max(medians))
        if not (paired_ratio(rates[winner], rates[0]).differs and winner):
            winner = 0
        trials += [
            Trial(setting, getattr(option, setting), option, found, place == winner)
            for place, (option, found) in enumerate(zip(options, rates, strict=True))
        ]
        best = options[winner]
    return best, trials


def tune(file: Path, limits: Limits | None, tell: Callable[[], None]) -> Tuned:
    """Search on one GGUF file. Raises HousecallError when the engine can't run it."""
    check_file(file)

    def rate(tuning: Tuning) -> float:
        found = asyncio.run(_decode_rate(file, tuning))
        tell()
        return found

    best, trials = search(rate, cpu_count())
    median, first = (_median(trials, tuning) for tuning in (best, Tuning()))
    report = {
        "file": file.name,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "tokens_per_second": median,
        "tokens_per_second_with_defaults": first,
        "bandwidth_share": limits and median * token_bytes(file) / limits.read_bytes_per_second,
        "read_bytes_per_second": limits and limits.read_bytes_per_second,
        "trials": [
            {
                "setting": t.setting,
                "value": t.value,
                "tokens_per_second": statistics.median(t.rates),
                "taken": t.taken,
            }
            for t in trials
        ],
    }
    return Tuned(best, report)


def _median(trials: Sequence[Trial], tuning: Tuning) -> float:
    """Of all rounds with these settings: most were visited beside several others."""
    return statistics.median(rate for t in trials if t.tuning == tuning for rate in t.rates)


async def _decode_rate(file: Path, tuning: Tuning) -> float:
    config = LlamaConfig(
        model=str(file),
        n_ctx=256,
        parallel=1,
        threads=tuning.threads or cpu_count(),
        gpu_layers=0,
        cache_reuse=False,
        prompt_cache_mib=0,
        tuning=tuning,
    )
    async with open_engine(config) as engine:
        prompt = (await engine.tokenize("The doctor asks how long the pain has lasted. " * 8))[
            :_PROMPT
        ]
        await engine.stream(prompt, 4)
        return (await engine.stream(prompt, _TOKENS)).rate
