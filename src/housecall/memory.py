"""What of a long conversation goes into the model's window.

The engine keeps the work it has done on a prompt and starts again where the next prompt differs.
So nothing may change near the beginning of a prompt from one turn to the next: old turns leave in
blocks, many turns at once and then none for a long time, and the facts drawn from them are written
where the block was, in front of the first message that stays. Between two blocks every prompt
begins with the whole of the last one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from anyio import to_thread

from housecall.chat_template import AsyncTokenize, ChatTemplate, encode_with
from housecall.errors import ContextLengthExceeded
from housecall.facts import PRIORITY, Fact, draw
from housecall.records import BegunTurn
from housecall.types import Message

Encode = Callable[[Sequence[Message]], Awaitable[list[int]]]
"""Token ids of a conversation, ready for the model to answer."""

Policy = Literal["pin", "drop", "refuse"]
"""What happens to a conversation that outgrows its window: old turns leave and their facts stay;
old turns leave; the request is refused."""

_STAYING = 0.5  # of the room for a prompt, when a block leaves
_LARGEST_SHARE_OF_FACTS = 0.25  # of the window

INTRODUCTION = "From earlier in this conversation, in my own words:"


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and what was answered to it; ``number`` is from 1."""

    number: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns that have not left the window, and the facts of those that have.

    The last message is the user's that is to be answered. ``before`` is the end of what has left:
    a short reply in the oldest turn that stayed may answer a question in it.
    """

    turns: tuple[Turn, ...]
    system: tuple[Message, ...] = ()
    facts: tuple[Fact, ...] = ()
    before: tuple[Message, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Conversation:
        """A conversation that its caller keeps: nothing has left."""
        system = tuple(message for message in messages if message.role == "system")
        turns: list[list[Message]] = []
        for message in messages:
            if message.role == "user" or (message.role == "assistant" and not turns):
                turns.append([message])
            elif message.role == "assistant":
                turns[-1].append(message)
        return cls(tuple(Turn(n, tuple(turn)) for n, turn in enumerate(turns, 1)), system)

    @property
    def first_turn(self) -> int:
        """The number of the oldest turn that has not left."""
        return self.turns[0].number

    @property
    def history(self) -> list[Message]:
        """What is known of what was said before the new message, the system prompt included."""
        said = [message for turn in self.turns for message in turn.messages]
        return [*self.system, *self.before, *said[:-1]]

    def without(self, leaving: int, *, pin: bool) -> Conversation:
        """The conversation after its oldest turns have left; with ``pin`` their facts stay."""
        facts: Sequence[Fact] = self.facts
        last = self.before[-1:]
        for turn in self.turns[:leaving]:
            for message in turn.messages:
                if pin and message.role == "user":
                    asked = last[0].content if last and last[0].role == "assistant" else ""
                    facts = draw(facts, message.content, turn.number, asked=asked)
                last = (message,)
        return replace(self, turns=self.turns[leaving:], facts=tuple(facts), before=last)

    def messages(self, pinned: Sequence[Fact]) -> list[Message]:
        """What the model reads: the pinned facts stand before the first message that stayed.

        They are the user's words, so they are the user's turn: a system prompt says more.
        """
        first, *rest = [message for turn in self.turns for message in turn.messages]
        if pinned and first.role == "user":
            first = Message("user", f"{noted(pinned)}\n\n{first.content}")
        elif pinned:
            rest.insert(0, first)
            first = Message("user", noted(pinned))
        return [*self.system, first, *rest]


def resumed(begun: BegunTurn) -> Conversation:
    """The conversation of a saved session, from what is read of it for a new turn."""
    said: dict[int, list[Message]] = {}
    for message in begun.messages:
        if message.content:
            said.setdefault(message.turn, []).append(Message(message.role, message.content))
    first = begun.first_turn
    return Conversation(
        turns=tuple(Turn(n, tuple(messages)) for n, messages in said.items() if n >= first),
        system=(Message("system", begun.system),) if begun.system else (),
        facts=tuple(map(Fact.of, begun.facts)),
        before=tuple(message for n, messages in said.items() if n < first for message in messages),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The prompt, what it was made of, and what had no place in it."""

    prompt: tuple[int, ...]
    n_ctx: int
    conversation: Conversation
    pinned: tuple[Fact, ...] = ()
    unpinned: tuple[Fact, ...] = ()

    @property
    def turns_in_window(self) -> int:
        """How many turns the model reads, the new one included."""
        return len(self.conversation.turns)

    def as_dict(self, *, words: bool = True) -> dict[str, Any]:
        """The ``context`` of an answer; without ``words``, facts are named by their turns."""

        def shown(facts: Sequence[Fact]) -> list[dict[str, Any]]:
            return [{"text": f.text, "turn": f.turn} if words else {"turn": f.turn} for f in facts]

        return {
            "n_ctx": self.n_ctx,
            "prompt_tokens": len(self.prompt),
            "turns_total": self.conversation.turns[-1].number,
            "turns_in_window": self.turns_in_window,
            "dropped_turns": self.conversation.first_turn - 1,
            "pinned": shown(self.pinned),
            **({"unpinned": shown(self.unpinned)} if self.unpinned else {}),
        }


async def choose_window(
    conversation: Conversation, policy: Policy, *, n_ctx: int, max_tokens: int, encode: Encode
) -> Window:
    """The prompt for a conversation, with room for ``max_tokens`` of answer where that can be.

    An answer never claims more than half of the window. When the turns that are there leave too
    little room, the oldest ones leave until the prompt is about half of what it may be. The
    system prompt, the facts and the new message always stay: where they leave less room than
    ``max_tokens``, the answer is shorter.

    Raises ContextLengthExceeded when what must stay does not fit.
    """
    room = n_ctx - min(max_tokens, n_ctx // 2)
    window = await _window(conversation, n_ctx, encode)
    if policy != "refuse" and len(window.prompt) > room and window.turns_in_window > 1:
        window = await _after_a_block(conversation, policy, n_ctx, int(room * _STAYING), encode)
    if len(window.prompt) >= n_ctx:
        raise ContextLengthExceeded(len(window.prompt), n_ctx)
    return window


async def _after_a_block(
    conversation: Conversation, policy: Policy, n_ctx: int, size: int, encode: Encode
) -> Window:
    """As few turns leave as make the prompt no longer than ``size``; the newest one stays."""
    kept = await _newest_turns(conversation, size, encode)
    while True:
        leaving = len(conversation.turns) - kept
        # In a thread: a conversation of thousands of turns may leave at once.
        rest = await to_thread.run_sync(partial(conversation.without, leaving, pin=policy == "pin"))
        window = await _window(rest, n_ctx, encode)
        if len(window.prompt) <= size or kept == 1:
            return window
        kept -= max(1, kept // 4)  # the facts of what left need some of the room


async def _newest_turns(conversation: Conversation, size: int, encode: Encode) -> int:
    """How many of the newest turns fit, found with few encodings: doubling, then halving."""
    turns = conversation.turns
    kept, too_many = 1, len(turns) + 1
    while too_many - kept > 1:
        tried = min(2 * kept, len(turns), (kept + too_many) // 2)
        newest = replace(conversation, turns=turns[len(turns) - tried :])
        if len(await encode(newest.messages(()))) <= size:
            kept = tried
        else:
            too_many = tried
    return kept


async def _window(conversation: Conversation, n_ctx: int, encode: Encode) -> Window:
    """The window of all turns that are there, with the facts that there is a place for."""
    pinned = list(conversation.facts)
    ranked = sorted(pinned, key=lambda fact: (PRIORITY.index(fact.kind), -fact.turn))
    unpinned: list[Fact] = []
    largest = int(n_ctx * _LARGEST_SHARE_OF_FACTS)
    while pinned and len(await encode([Message("user", noted(pinned))])) > largest:
        unpinned.append(ranked.pop())
        pinned.remove(unpinned[-1])
    prompt = await encode(conversation.messages(pinned))
    return Window(tuple(prompt), n_ctx, conversation, tuple(pinned), tuple(unpinned))


def noted(facts: Sequence[Fact]) -> str:
    """Facts as the model reads them."""
    return "\n".join([INTRODUCTION, *(f"- {fact.text} (turn {fact.turn})" for fact in facts)])


def raw_encoder(prefix: Sequence[int], tokenize: AsyncTokenize) -> Encode:
    """Encodes texts as they are, without a template; their control tokens are characters too."""

    async def encode(messages: Sequence[Message]) -> list[int]:
        text = "".join(message.content for message in messages)
        return [*prefix, *await tokenize(text, special=False)]

    return encode


class KnownTokens:
    """The newest tokenised texts, so that each turn sends the engine only what is new.

    Without it every message of a window would go to the engine again for each answer. Keys are
    the texts themselves; they stay in this process's memory, ``limit`` characters at the most.
    """

    def __init__(self, limit: int = 4_000_000) -> None:
        self._ids: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()
        self._limit = limit
        self._characters = 0

    def encoder(self, template: ChatTemplate, tokenize: AsyncTokenize) -> Encode:
        """Encodes conversations with a model's template."""

        async def tokenize_once(text: str, *, special: bool) -> list[int]:
            known = self._ids.get((text, special))
            if known is None:
                known = await tokenize(text, special=special)
                self._keep(text, special, known)
            else:
                self._ids.move_to_end((text, special))
            return known

        async def encode(messages: Sequence[Message]) -> list[int]:
            segments = template.segments(_alternating(messages), add_generation_prompt=True)
            return await encode_with(segments, tokenize_once)

        return encode

    def _keep(self, text: str, special: bool, ids: list[int]) -> None:
        if (text, special) not in self._ids:
            self._ids[text, special] = ids
            self._characters += len(text)
        while self._characters > self._limit:
            (oldest, _), _ = self._ids.popitem(last=False)
            self._characters -= len(oldest)


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
