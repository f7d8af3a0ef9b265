"""How the parts of the page look."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import streamlit as st

from housecall.ui.conversation import Turn
from housecall.ui.escape import formatted, plain
from housecall.ui.provenance import describe, describe_lineage

# What Streamlit has no setting for. Its own colours stay, so light and dark both hold.
_STYLE = """<style>
.block-container {padding-top: 3.5rem; padding-bottom: 2rem}
.st-key-sessions button {padding-left: .6rem; padding-right: .6rem}
.st-key-sessions button :is(div, span) {justify-content: flex-start; min-width: 0}
.st-key-sessions button p {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.stChatMessage [data-testid="stText"] {white-space: pre-wrap; overflow-wrap: anywhere}
.stExpander ol {margin-bottom: .5rem}
</style>"""

_BOXES = {
    "emergency": (st.error, ":material/emergency:"),
    "crisis": (st.error, ":material/support:"),
    "dose": (st.warning, ":material/medication:"),
}


def heading() -> None:
    """The name of the page, and what it is not."""
    st.html(_STYLE)
    st.title("Housecall", anchor=False)
    st.markdown(
        "Information about health, not a diagnosis. "
        "**In an emergency, call your local emergency number.**"
    )


def question(turn: Turn) -> None:
    """What the user said, exactly as typed."""
    with st.chat_message("user", avatar=":material/person:"):
        st.text(turn.question)


def answer(turn: Turn, changes: Iterable[None]) -> None:
    """An answer, drawn again after each of ``changes``: the guard's message, then the text."""
    guard, text = st.empty(), st.empty()
    if turn.status == "waiting":
        text.caption("Reading your message …")
    _guard_box(turn, guard)
    _text(turn, text)
    for _ in changes:
        _guard_box(turn, guard)
        _text(turn, text)
    _ending(turn)
    if turn.facts:
        _facts(turn)


def asking_again(turn: Turn, ask: Callable[[Turn], None]) -> None:
    """A button for a question that has no answer."""
    st.button("Send again", icon=":material/refresh:", key="again", on_click=ask, args=(turn,))


def api_down(url: str, command: str) -> None:
    """What to do when nothing answers."""
    with st.container(border=True):
        st.error(f"The Housecall API at {plain(url)} does not answer.", icon=":material/cloud_off:")
        st.markdown("Start it in a terminal. This page goes on by itself when it answers.")
        st.code(command, language="bash")
        st.button("Try again", icon=":material/refresh:", key="retry")


def _guard_box(turn: Turn, place: st.delta_generator.DeltaGenerator) -> None:
    if turn.guard_message:
        box, icon = _BOXES.get(turn.guard["level"], (st.info, ":material/info:"))
        with place:
            box(formatted(turn.guard_message), icon=icon)


def _text(turn: Turn, place: st.delta_generator.DeltaGenerator) -> None:
    if turn.text:
        place.markdown(formatted(turn.text))


def _ending(turn: Turn) -> None:
    """Why an answer ends where it ends, if not by itself."""
    if turn.status == "error":
        st.warning(
            plain(turn.error) or "The answer failed midway.", icon=":material/error_outline:"
        )
    elif turn.status == "cancelled":
        st.caption("Stopped here." if turn.text else "Stopped before an answer.")
    elif turn.facts.get("finish_reason") == "length":
        st.caption("Cut at the longest answer allowed: raise it under Settings.")


def _facts(turn: Turn) -> None:
    with st.expander("What stands behind this answer", icon=":material/account_tree:"):
        st.markdown(describe(turn.facts))
        if "lineage" in turn.facts:
            st.markdown("**Lineage**")
            st.markdown(describe_lineage(turn.facts["lineage"]))
        st.caption(f"Answer {plain(turn.facts['id'])}")
