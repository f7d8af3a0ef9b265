"""Parity at export: the engine with the GGUF file is the model that was merged.

Every GGUF file must give the same token ids, with the same template, and stop at the same token.
``gguf-f16``, which rounds nothing, must also give the same greedy answers; a first difference
between two tokens that FP16 itself holds almost equal is noise, and is only listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from housecall.artifact import write_json
from housecall.chat_template import encode
from housecall.checks.diagnosis import explain, key_faults
from housecall.checks.engine import greedy, running
from housecall.checks.greedy import Divergence, first_divergences
from housecall.checks.streamed import read_folder, streamed_model
from housecall.checks.tokens import Expected, TokenFindings, compare_tokens
from housecall.config import ParityConfig
from housecall.errors import ParityFailed
from housecall.gguf.files import GgufFile
from housecall.progress import bar
from housecall.types import Message

REPORT = "parity.json"
_CTX = 1024

_QUESTIONS = (
    "I have had a sore throat for two days. What can I do at home?",
    "My knee hurts since Monday. 😣",
    "How much water should I drink with a fever?",
    "头痛两天了 怎么办",
    "What is high blood pressure?",
    "Can I take two medicines at once?",
    "J'ai mal au dos depuis une semaine.",
    "My child has a rash. What should I look for?",
)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one engine said and how it reads text."""

    tokens: TokenFindings
    answers: list[list[int]]


class Parity:
    """Compares GGUF files with the merged model in ``folder``."""

    def __init__(self, config: ParityConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    def require(self, model: Path, fmt: str, report: Path, kept: Path) -> None:
        """Examine a file and write ``report``.

        Raises ParityFailed naming the cause; the report is then in ``kept``, because a file that
        fails is not kept itself.
        """
        kept.unlink(missing_ok=True)
        found = self.examine(model, exact=fmt == "gguf-f16")
        if not found["failures"]:
            write_json(report, found)
            return
        found["causes"] = explain(model, self._folder)
        write_json(kept, found)
        likely = (
            found["causes"][0]
            if found["causes"]
            else (
                "its keys and weights are those of the merged model, so look at how the engine "
                "computes it (its version, the conversion itself)"
            )
        )
        raise ParityFailed(
            f"{fmt} is not the model that was merged: {found['failures'][0]}; likely cause: "
            f"{likely} (all that was found: {kept})"
        )

    def examine(self, model: Path, *, exact: bool) -> dict[str, Any]:
        """Everything that was compared, and the failures among it."""
        with bar("parity", 2) as progress:
            faults = key_faults(GgufFile(model), self._folder)
            said = asyncio.run(self._ask(model, self._prompts if exact else []))
            progress.advance()
            divergences = self._divergences(said.answers) if exact else []
            progress.advance()
        failures = [*faults, *said.tokens.differences]
        failures += [self._failure(d) for d in divergences if d.gap > self._config.near_tie]
        found = {"tokens": asdict(said.tokens), "failures": failures}
        if exact:
            found["greedy"] = {
                "answers": len(said.answers),
                "tokens": sum(map(len, said.answers)),
                "near_tie": self._config.near_tie,
                "differences": [asdict(d) for d in divergences],
            }
        return found

    @cached_property
    def _expected(self) -> Expected:
        return Expected(self._folder)

    @cached_property
    def _prompts(self) -> list[list[int]]:
        questions = [_QUESTIONS[i % len(_QUESTIONS)] for i in range(self._config.answers)]
        # Beyond the list, the same questions stand behind an earlier turn.
        before = (Message("user", "Hello"), Message("assistant", "Hello. How can I help?"))
        return [
            encode(
                self._expected.template.segments(
                    [*before * (i // len(_QUESTIONS)), Message("user", question)],
                    add_generation_prompt=True,
                ),
                self._expected.tokenizer,
            )
            for i, question in enumerate(questions)
        ]

    async def _ask(self, model: Path, prompts: Sequence[Sequence[int]]) -> _Answers:
        async with running(model, _CTX) as engine:
            tokens = await compare_tokens(self._expected, engine)
            answers = [await greedy(engine, p, self._config.answer_tokens) for p in prompts]
        return _Answers(tokens, answers)

    def _divergences(self, answers: Sequence[Sequence[int]]) -> list[Divergence]:
        model = streamed_model(self._folder, read_folder(self._folder))
        return first_divergences(model, self._prompts, answers)

    def _failure(self, found: Divergence) -> str:
        return (
            f"greedy answer {found.prompt + 1} differs at token {found.position + 1}, where FP16 "
            f"prefers its own token by {found.gap:.2f} logits (more than {self._config.near_tie})"
        )
