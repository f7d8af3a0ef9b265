"""What of a long conversation goes into the model's window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from housecall.chat_template import AsyncTokenize, ChatTemplate, encode_with
from housecall.errors import ContextLengthExceeded
from housecall.types import Message

Encode = Callable[[Sequence[Message]], Awaitable[list[int]]]
"""Token ids of a conversation, ready for the model to answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """The prompt, and how many of the turns (a question and its answer) are in it."""

    prompt: tuple[int, ...]
    n_ctx: int
    turns_total: int
    turns_in_window: int

    def as_dict(self) -> dict[str, Any]:
        """The ``context`` of an answer."""
        return {
            "n_ctx": self.n_ctx,
            "prompt_tokens": len(self.prompt),
            "turns_total": self.turns_total,
            "turns_in_window": self.turns_in_window,
            "dropped_turns": self.turns_total - self.turns_in_window,
            "pinned": [],
        }


class Memory(Protocol):
    """Chooses the window of a conversation."""

    async def window(
        self, messages: Sequence[Message], *, n_ctx: int, max_tokens: int, encode: Encode
    ) -> Window:
        """The prompt for ``messages``, whose last one is the user's.

        Raises ContextLengthExceeded when what must stay does not fit ``n_ctx``.
        """
        ...


class WholeConversation:
    """Everything or an error: for callers that keep the conversation themselves."""

    async def window(
        self, messages: Sequence[Message], *, n_ctx: int, max_tokens: int, encode: Encode
    ) -> Window:
        """All messages; the answer has the room that they leave, however small."""
        prompt = await encode(messages)
        _check(prompt, n_ctx)
        turns = len(_turns(messages)[1])
        return Window(tuple(prompt), n_ctx, turns, turns)


class NewestTurns:
    """The system prompt and the newest turns that leave room for ``max_tokens`` of answer.

    Older turns are dropped whole. The newest message always stays: where it leaves less room than
    that, the answer is shorter. An answer never claims more than half of the window.
    """

    async def window(
        self, messages: Sequence[Message], *, n_ctx: int, max_tokens: int, encode: Encode
    ) -> Window:
        """The newest turns that fit, found with few encodings: doubling, then halving."""
        system, turns = _turns(messages)
        room = n_ctx - min(max_tokens, n_ctx // 2)

        async def prompt(kept: int) -> list[int]:
            newest = turns[len(turns) - kept :]
            return await encode([*system, *(message for turn in newest for message in turn)])

        best, kept, too_many = await prompt(1), 1, len(turns) + 1
        _check(best, n_ctx)
        while too_many - kept > 1:
            tried = min(2 * kept, len(turns), (kept + too_many) // 2)
            ids = await prompt(tried)
            if len(ids) <= room:
                best, kept = ids, tried
            else:
                too_many = tried
        return Window(tuple(best), n_ctx, len(turns), kept)


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system messages, and the others cut before each message of the user."""
    system = [message for message in messages if message.role == "system"]
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or (message.role == "assistant" and not turns):
            turns.append([message])
        elif message.role == "assistant":
            turns[-1].append(message)
    return system, turns


def _check(prompt: Sequence[int], n_ctx: int) -> None:
    if len(prompt) >= n_ctx:
        raise ContextLengthExceeded(len(prompt), n_ctx)


def encoder(template: ChatTemplate, tokenize: AsyncTokenize) -> Encode:
    """Encodes conversations with a model's template; each text is tokenised once."""
    known: dict[tuple[str, bool], list[int]] = {}

    async def tokenize_once(text: str, *, special: bool) -> list[int]:
        key = text, special
        if key not in known:
            known[key] = await tokenize(text, special=special)
        return known[key]

    async def encode(messages: Sequence[Message]) -> list[int]:
        segments = template.segments(_alternating(messages), add_generation_prompt=True)
        return await encode_with(segments, tokenize_once)

    return encode


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """Join messages of one role in a row, which many templates refuse.

    A question that was never answered is so asked again with the next one, once if they are equal.
    """
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is None or last.role != message.role:
            joined.append(message)
        elif message.content != last.content:
            joined[-1] = Message(last.role, f"{last.content}\n\n{message.content}")
    return joined
