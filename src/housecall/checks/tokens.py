"""The same token ids from Hugging Face's files and from the engine with the GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from housecall.chat_template import ChatTemplate, encode, encode_with
from housecall.checks.conversations import Conversation, conversations
from housecall.checks.engine import stops_at, tokens_read
from housecall.engines.llama import LlamaEngine
from housecall.errors import ConfigError
from housecall.steps.base import HfTokenizer, load_template
from housecall.types import Message

_PROBE = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Bye"))


@dataclass(slots=True)
class TokenFindings:
    """What was compared, and what differs (a line each)."""

    conversations: int = 0
    refused_by_template: int = 0
    plain_compared: int = 0
    plain_joins_white_space: list[str] = field(default_factory=list)
    auto_tokenizer_differs: int = 0
    differences: list[str] = field(default_factory=list)


@dataclass(slots=True)
class PlainFindings:
    """Plain tokenising of whole texts against ours.

    ``joined`` are conversations where white space of the template and of a content became one
    token. ``auto_tokenizer_differs`` counts those where transformers' own class of tokenizer
    gives other ids; neither is a fault of the GGUF file.
    """

    compared: int = 0
    joined: list[str] = field(default_factory=list)
    auto_tokenizer_differs: int = 0
    differences: list[str] = field(default_factory=list)


class Expected:
    """What Hugging Face's files of a model say: read once, compared with every GGUF file."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = HfTokenizer(folder)
        self.template = load_template(folder, self.tokenizer)
        self._plain = _PlainTemplate.of_file(folder, self.template, self.tokenizer)
        self._auto = _PlainTemplate.of_class(folder)
        self.rows = [(c, self._ids(self.template, c.messages)) for c in conversations()]

    def prompt(self) -> list[int]:
        """An everyday prompt of several turns."""
        return encode(self.template.segments(_PROBE, add_generation_prompt=True), self.tokenizer)

    def end_of_turn(self) -> list[int]:
        """The tokens that the template itself writes behind an answer to end it."""
        segments = self.template.segments(_PROBE[:2])
        after = next(
            (
                segments[i + 1].text
                for i, s in enumerate(segments[:-1])
                if (s.kind, s.role) == ("content", "assistant")
            ),
            "",
        )
        ids = self.tokenizer(after, special=True)
        return [token for token in ids if token in self.tokenizer.end_of_turn][:1]

    @cached_property
    def plain(self) -> PlainFindings:
        """``apply_chat_template`` on whole texts against ours."""
        found = PlainFindings()
        for conversation, ids in self.rows:
            if ids is None or conversation.types_control:
                continue
            found.compared += 1
            plain = self._plain.ids(conversation.messages)
            found.auto_tokenizer_differs += self._auto.ids(conversation.messages) != plain
            if plain == ids:
                continue
            same_text = self._plain.text(plain) == self._plain.text(ids)
            if conversation.starts_blank and same_text:
                found.joined.append(conversation.name)
            else:
                where = _first_difference(plain, ids)
                found.differences.append(
                    f"{conversation.name}: apply_chat_template differs at {where}"
                )
        return found

    def _ids(self, template: ChatTemplate, messages: Sequence[Message]) -> list[int] | None:
        """None where the template refuses the conversation."""
        try:
            segments = template.segments(messages, add_generation_prompt=True)
        except ConfigError:
            return None
        return encode(segments, self.tokenizer)


class _PlainTemplate:
    """The way of transformers: render everything, then tokenise the whole text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of_file(cls, folder: Path, template: ChatTemplate, tokenizer: HfTokenizer) -> Self:
        """With ``tokenizer.json`` as it stands."""
        from transformers import PreTrainedTokenizerFast

        return cls(
            PreTrainedTokenizerFast(
                tokenizer_file=str(folder / "tokenizer.json"),
                chat_template=template.source,
                bos_token=tokenizer.token("bos_token") or None,
                eos_token=tokenizer.token("eos_token") or None,
            )
        )

    @classmethod
    def of_class(cls, folder: Path) -> Self:
        """With the class that ``tokenizer_config.json`` names, which may build another tokenizer.

        transformers 5 does so for the Llama 2 family with ``legacy: false``: it writes no space
        behind a control token, where ``tokenizer.json``, and llama.cpp with it, do.
        """
        from transformers import AutoTokenizer

        return cls(
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    def ids(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        found: list[int] = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return found

    def text(self, ids: Sequence[int]) -> str:
        decoded: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return decoded


async def compare_tokens(expected: Expected, engine: LlamaEngine) -> TokenFindings:
    """Template, ids, single BOS and end of turn of the engine against Hugging Face's."""
    plain = expected.plain
    findings = TokenFindings(
        conversations=len(expected.rows),
        plain_compared=plain.compared,
        plain_joins_white_space=plain.joined,
        auto_tokenizer_differs=plain.auto_tokenizer_differs,
        differences=list(plain.differences),
    )
    info = engine.info
    if info.chat_template.strip() != expected.template.source.strip():
        findings.differences.append("its chat template is not the model's")
    template = ChatTemplate(info.chat_template, bos_token=info.bos_token, eos_token=info.eos_token)
    for conversation, ids in expected.rows:
        found = await _engine_ids(template, conversation, engine)
        findings.refused_by_template += ids is None
        if found != ids:
            where = _first_difference(ids or [], found or [])
            findings.differences.append(f"{conversation.name}: token ids differ at {where}")
    findings.differences += await _stopping(expected, engine)
    return findings


async def _engine_ids(
    template: ChatTemplate, conversation: Conversation, engine: LlamaEngine
) -> list[int] | None:
    try:
        segments = template.segments(conversation.messages, add_generation_prompt=True)
    except ConfigError:
        return None
    return await encode_with(segments, engine.tokenize)


async def _stopping(expected: Expected, engine: LlamaEngine) -> list[str]:
    """No BOS is put before a prompt, no control token is doubled, answers end where they should."""
    prompt, ends = expected.prompt(), expected.end_of_turn()
    found = []
    if (read := await tokens_read(engine, prompt)) != len(prompt):
        found.append(f"the engine reads {read} tokens of a prompt of {len(prompt)}: BOS twice?")
    single = {*ends, *expected.tokenizer(expected.tokenizer.token("bos_token"), special=True)}
    if any(a == b and a in single for a, b in pairwise(prompt)):
        found.append("a prompt has BOS or the end of turn twice in a row")
    if not ends:
        found.append(
            "the template ends no answer with an end-of-turn token: answers would not stop"
        )
    for token in ends:
        if not await stops_at(engine, prompt, token):
            found.append(f"an answer does not end at the end-of-turn token {token}")
    return found


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return f"position {place} ({list(one[place : place + 3])} and {list(other[place : place + 3])})"
