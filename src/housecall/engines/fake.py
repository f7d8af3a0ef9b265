"""A scripted engine without a model, for tests and for looking at the UI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from math import log

from housecall.engines.base import EngineInfo, unit
from housecall.engines.stop import StopStrings
from housecall.errors import ContextLengthExceeded, EngineError, EngineUnavailable
from housecall.types import Chunk, FinishReason, Sampling, TokenScore, Usage

Replies = Sequence[str] | Callable[[str], str]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, TURN_START, TURN_END = range(len(CONTROL))

_CONTROL = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")
_PIECE = re.compile(r" ?\w+| ?[^\w\s]|\s")


class WordTokenizer:
    """About one id a word, given out in the order of first use; control tokens come first."""

    def __init__(self) -> None:
        self._pieces = list(CONTROL)
        self._ids: dict[str, int] = {}

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``; ``decode`` gives it back."""
        if not special:
            return [self._id(piece) for piece in _PIECE.findall(text)]
        ids: list[int] = []
        for part in _CONTROL.split(text):
            known = part in CONTROL
            ids += [CONTROL.index(part)] if known else self.encode(part, special=False)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens included."""
        return "".join(self._pieces[token] for token in ids)

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[piece]


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request that a fake engine was given; ``text`` is its prompt, control tokens included."""

    prompt: tuple[int, ...]
    text: str
    sampling: Sampling


def echo(prompt: str) -> str:
    """A reply that says what the user said last."""
    user = prompt.rpartition("<|im_start|>user\n")[2]
    return "you said: " + user.partition("<|im_end|>")[0].strip()


class FakeEngine:
    """Gives scripted replies word by word, each ended by ``<|im_end|>``.

    ``replies`` are given in turn, from the first one again after the last, or made from the text
    of the prompt; the default is ``echo``. ``delay`` is in seconds per token. With ``fail_after``
    every stream raises ``failure`` after that many tokens. Of ``Sampling``, ``max_tokens`` and
    ``stop`` count; there is nothing to sample. ``requests`` keeps what it was asked, ``active``
    counts the streams being answered, and ``available = False`` takes it down.
    """

    def __init__(
        self,
        replies: Replies = echo,
        *,
        n_ctx: int = 2048,
        parallel: int = 4,
        delay: float = 0.0,
        fail_after: int | None = None,
        failure: EngineError | None = None,
    ) -> None:
        self.requests: list[FakeRequest] = []
        self.tokenizer = WordTokenizer()
        self.available = True
        self.active = 0
        self._replies = replies
        self._delay = delay
        self._fail_after = fail_after
        self._failure = failure or EngineUnavailable("the fake engine failed as it was told to")
        self._running = False
        self._slots = asyncio.Semaphore(parallel)
        self._info = EngineInfo(
            name="fake",
            model="fake",
            n_ctx=n_ctx,
            parallel=parallel,
            chat_template=CHATML,
            bos_token=CONTROL[TURN_START],
            eos_token=CONTROL[TURN_END],
            eog_ids=frozenset({END_OF_TEXT, TURN_END}),
        )

    @property
    def info(self) -> EngineInfo:
        """What is running."""
        return self._info

    @property
    def restarts(self) -> int:
        """It never dies."""
        return 0

    async def start(self) -> None:
        """Nothing to load."""
        self._running = True

    async def close(self) -> None:
        """Refuse further requests."""
        self._running = False

    async def ready(self) -> bool:
        """True between ``start`` and ``close`` while ``available``."""
        return self._running and self.available

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``; control tokens are single ids only with ``special``."""
        self._check_running()
        return self.tokenizer.encode(text, special=special)

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        """The next reply, one chunk a token."""
        self._check_running()
        if len(prompt) >= self._info.n_ctx:
            raise ContextLengthExceeded(len(prompt), self._info.n_ctx)
        async with self._slot():
            text = self.tokenizer.decode(prompt)
            self.requests.append(FakeRequest(tuple(prompt), text, sampling))
            reply = self._reply(text)
            room = min(sampling.max_tokens, self._info.n_ctx - len(prompt))
            answer = [*self.tokenizer.encode(reply, special=False), TURN_END][:room]
            async with aclosing(self._answer(answer, len(prompt), sampling)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """How often a text has a token of each remainder by 16."""
        self._check_running()
        remainders = [token % 16 for token in ids]
        return unit([remainders.count(value) for value in range(16)])

    def _score(self, token: int, top: int) -> TokenScore:
        """Each token has a probability of a half, the next ones a half of the one before."""
        likely = (token, *range(token))[:top]
        scores = [
            TokenScore(text := self.tokenizer.decode([other]), text.encode(), -log(2) * place)
            for place, other in enumerate(likely, 1)
        ]
        text = self.tokenizer.decode([token])
        return TokenScore(text, text.encode(), -log(2), tuple(scores))

    async def _answer(
        self, answer: Sequence[int], prompt_tokens: int, sampling: Sampling
    ) -> AsyncGenerator[Chunk, None]:
        shown, top = StopStrings(sampling.stop), sampling.top_logprobs
        finish: FinishReason = "length"
        count = 0
        for count, token in enumerate(answer, 1):
            await asyncio.sleep(self._delay)
            self._check_running()
            if self._fail_after is not None and count > self._fail_after:
                raise self._failure
            ends = token == TURN_END
            text = "" if ends else shown.push(self.tokenizer.decode([token]))
            scores = () if ends or top is None else (self._score(token, top),)
            yield Chunk(text, (token,), scores=scores)
            if token == TURN_END or shown.found:
                finish = "stop"
                break
        yield Chunk(shown.flush(), (), finish, Usage(prompt_tokens, count))

    def _reply(self, prompt: str) -> str:
        if callable(self._replies):
            return self._replies(prompt)
        return self._replies[(len(self.requests) - 1) % len(self._replies)]

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._slots:
            self.active += 1
            try:
                yield
            finally:
                self.active -= 1

    def _check_running(self) -> None:
        if not (self._running and self.available):
            raise EngineUnavailable("the fake engine is not running: start it first")
