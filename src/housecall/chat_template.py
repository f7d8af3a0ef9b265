"""The one place that turns a conversation into token ids, for training and for serving.

A user's text is never control. A chat template is rendered with every content replaced by a
placeholder, the result is cut at the placeholders, and only the template's own text is tokenised
with control tokens; contents are tokenised as plain characters. So ``<|im_end|>`` typed by a user
is five ordinary tokens here, while ``apply_chat_template`` would end the turn.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, SupportsIndex

from housecall.errors import ConfigError
from housecall.template_sandbox import compile_template, render
from housecall.types import Message, Role

IGNORE = -100
"""The label that a loss leaves out (the convention of torch's cross entropy)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a rendered conversation: the template's own text, or one message's content."""

    text: str
    kind: Literal["template", "content"]
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids with the labels of a causal language model: ``IGNORE`` where no loss is taken."""

    ids: list[int]
    labels: list[int]


class Tokenizer(Protocol):
    """Token ids of a text without BOS or EOS; ``special`` makes control tokens of their text."""

    def __call__(self, text: str, *, special: bool) -> list[int]:
        """Tokenise one text."""
        ...


AsyncTokenize = Callable[..., Awaitable[list[int]]]
_Plan = Generator[tuple[str, bool], list[int], list[list[int]]]


class ChatTemplate:
    """A model's Jinja chat template.

    Raises ConfigError when the template does not compile.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self._template = compile_template(source)
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def segments(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> list[Segment]:
        """The rendered conversation in order, contents apart from the template's text.

        Raises ConfigError when the template refuses the conversation (such as two user turns in
        a row where it wants them alternating).
        """
        registry: dict[str, _Held] = {}
        text = render(
            self._template,
            messages=[
                {"role": m.role, "content": _Held._new(m.content, m.role, registry)}
                for m in messages
            ],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._tokens,
        )
        return _cut(text, registry)

    def try_out(self) -> None:
        """Render one question. Raises ConfigError for a template that is broken or not safe."""
        self.segments([Message("user", "Hello")], add_generation_prompt=True)


def encode(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a rendered conversation (BOS only where the template writes it)."""
    return [token for run in _encode_runs(segments, tokenizer) for token in run]


async def encode_with(segments: Sequence[Segment], tokenize: AsyncTokenize) -> list[int]:
    """``encode`` with an engine's ``tokenize`` coroutine; the ids are the same."""
    plan = _plan(segments)
    answer: list[int] | None = None
    while True:
        try:
            text, special = next(plan) if answer is None else plan.send(answer)
        except StopIteration as done:
            return [token for run in done.value for token in run]
        answer = await tokenize(text, special=special)


def encode_for_training(
    segments: Sequence[Segment], tokenizer: Tokenizer, end_of_turn: Collection[int]
) -> Encoded:
    """Ids and labels: the loss is on each assistant turn and the token that ends it.

    ``end_of_turn`` are the ids of which the first one after an assistant's content is learned,
    so that the model learns to stop; what the template writes after it is not.
    """
    ids: list[int] = []
    labels: list[int] = []
    after_answer = False
    for segment, run in zip(segments, _encode_runs(segments, tokenizer), strict=True):
        ids += run
        if segment.kind == "content" and segment.role == "assistant":
            labels += run
            after_answer = True
            continue
        learned = 0
        if after_answer and segment.kind == "template":
            learned = next((i + 1 for i, token in enumerate(run) if token in end_of_turn), 0)
        labels += run[:learned] + [IGNORE] * (len(run) - learned)
        after_answer = False
    return Encoded(ids, labels)


def _encode_runs(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[list[int]]:
    plan = _plan(segments)
    answer: list[int] | None = None
    while True:
        try:
            text, special = next(plan) if answer is None else plan.send(answer)
        except StopIteration as done:
            runs: list[list[int]] = done.value
            return runs
        answer = tokenizer(text, special=special)


_ANCHOR = "\n"


def _plan(segments: Sequence[Segment]) -> _Plan:
    """What to tokenise, one text at a time, and how to put the answers together.

    A SentencePiece tokenizer of the Llama 2 family puts a space before each text it is given,
    which must happen only where the text really starts, or follows a control token. Everything
    else is tokenised behind a line feed, whose tokens are then cut off again.
    """
    anchor = yield _ANCHOR, False
    probe = yield _ANCHOR + "x", False
    alone = yield "x", False
    adds_space = probe[: len(anchor)] == anchor and probe[len(anchor) :] != alone
    runs: list[list[int]] = []
    bare = True
    for segment, text in zip(segments, _texts(segments), strict=True):
        special = segment.kind == "template"
        if not text:
            runs.append([])
            continue
        if bare:
            runs.append((yield text, special))
        else:
            ids = yield _ANCHOR + text, special
            runs.append(ids[len(anchor) :])
        bare = not adds_space or (
            special and (yield text + "x", True) == [*(yield text, True), *alone]
        )
    return runs


def _texts(segments: Sequence[Segment]) -> list[str]:
    """The text of each segment as it is tokenised.

    Spaces that a template writes before a content go with the content: " Hello" is one token, and
    the one that a model writes after a prompt that ends without the space.
    """
    texts = [segment.text for segment in segments]
    for i, (before, after) in enumerate(pairwise(segments)):
        if before.kind == "template" and after.kind == "content":
            texts[i] = before.text.rstrip(" ")
            texts[i + 1] = before.text[len(texts[i]) :] + after.text
    return texts


def _cut(text: str, registry: dict[str, _Held]) -> list[Segment]:
    """Cut the rendered text at the placeholders.

    Raises ConfigError when the template has changed a placeholder (taken a part of it, put it in
    capitals): the content that it stands for would be lost.
    """
    pieces = text.split(_MARK)
    outside = "".join(pieces[::2])
    if not all(key in registry for key in pieces[1::2]) or any(key in outside for key in registry):
        raise ConfigError(
            "the model's chat template rewrites the messages' contents, which can't be told apart "
            "from its own text then: use a model whose template writes them as they are"
        )
    segments: list[Segment] = []
    for position, piece in enumerate(pieces):
        if position % 2:
            held = registry[piece]
            segments.append(Segment(held._content, "content", held._role))
        elif piece:
            segments.append(Segment(piece, "template"))
    return segments


# A noncharacter: never in valid interchange text, and no template writes it.
_MARK = "\ufdd0"


class _Held(str):
    """A placeholder that templates may strip, test and concatenate like the content it stands for.

    Its characters are a random key between two marks; what the template sees of the content is
    its length and the result of stripping, which is all that templates in use ask for. The
    sandbox keeps names with an underscore from templates, so the content itself is out of reach.
    """

    _registry: dict[str, _Held]
    _content: str
    _role: Role

    @classmethod
    def _new(cls, content: str, role: Role, registry: dict[str, _Held]) -> _Held:
        key = secrets.token_hex(8)
        held = cls(f"{_MARK}{key}{_MARK}")
        held._content, held._role, held._registry = content, role, registry
        registry[key] = held
        return held

    def _again(self, content: str) -> _Held:
        return self._new(content, self._role, self._registry)

    def __len__(self) -> int:
        return len(self._content)

    def __bool__(self) -> bool:
        return bool(self._content)

    def __contains__(self, item: object) -> bool:
        # A template that looks for markers in a content ("</think>") must not find a user's.
        return False

    def strip(self, chars: str | None = None, /) -> _Held:
        return self._again(self._content.strip(chars))

    def lstrip(self, chars: str | None = None, /) -> _Held:
        return self._again(self._content.lstrip(chars))

    def rstrip(self, chars: str | None = None, /) -> _Held:
        return self._again(self._content.rstrip(chars))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return [self]
