"""The table of rules, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from housecall.cleaning.answers import (
    is_cut,
    is_tiny,
    lost_list,
    only_refers,
    speaks_of_the_exercise,
)
from housecall.cleaning.base import Fault, Mend, Messages
from housecall.cleaning.characters import (
    has_lost_bytes,
    is_broken,
    mend_backslashes,
    mend_encoding,
    strip_html,
    tidy_space,
)
from housecall.cleaning.site import is_overwritten, strip_attachments, strip_site
from housecall.types import Message

RULES: tuple[Mend | Fault, ...] = (
    Mend("encoding mended", mend_encoding),
    Mend("quotation marks mended", mend_backslashes),
    Fault("broken characters", has_lost_bytes),
    Fault("broken characters", has_lost_bytes, role="user"),
    Mend("HTML removed", strip_html),
    Fault("only refers to a doctor", only_refers, together=True),
    Mend("phrases of the site removed", strip_site, roles=frozenset({"assistant"})),
    Mend("notes on attachments removed", strip_attachments),
    Mend("white space tidied", tidy_space),
    Fault("words overwritten by ChatDoctor", is_overwritten),
    Fault("words overwritten by ChatDoctor", is_overwritten, role="user"),
    Fault("tiny answer", is_tiny, together=True),
    Fault("speaks of the exercise", speaks_of_the_exercise),
    Fault("a list is missing", lost_list),
    Fault("cut in mid-sentence", is_cut),
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A dialogue after the rules: those that changed it, and the one that rejects it, if any."""

    messages: Messages
    mended: tuple[str, ...]
    fault: str | None


def check_shape(messages: Sequence[Message]) -> str | None:
    """Why a dialogue can't be trained on whatever its words are, or None."""
    roles = [m.role for m in messages if m.role != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        return "turns do not alternate between user and assistant"
    if any(m.role == "system" for m in messages[1:]):
        return "a system message that is not the first"
    if not all(m.content for m in messages):
        return "an empty turn"
    if any(is_broken(m.content) for m in messages):
        return "broken characters"
    return None


def clean(messages: Messages) -> Cleaned:
    """Run all rules over a dialogue, up to the first that rejects it."""
    mended: list[str] = []
    for rule in RULES:
        if isinstance(rule, Fault):
            if rule.applies(messages):
                return Cleaned(messages, tuple(mended), rule.name)
            continue
        changed = rule.apply(messages)
        if changed != messages:
            mended.append(rule.name)
            messages = changed
    return Cleaned(messages, tuple(mended), check_shape(messages))
