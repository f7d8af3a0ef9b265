"""The sidebar: the model, the conversations, and how answers are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from housecall.ui.client import Page
from housecall.ui.escape import plain
from housecall.ui.provenance import describe_model

_LONGEST_ANSWER = 4096
_LARGEST_SEED = 2**32 - 2
_MORE = 20


def model_state(models: list[dict[str, Any]], not_ready: str) -> None:
    """Which model answers, and whether it does."""
    for model in models:
        st.markdown(describe_model(model))
    if not_ready:
        st.caption(f":orange[:material/hourglass_top:] {plain(not_ready)}")
    else:
        st.caption(":green[:material/check_circle:] Ready")


def sessions(page: Page, current: str | None, open_one: Callable[[str], None]) -> None:
    """Earlier conversations, a button each."""
    st.subheader("Earlier chats", anchor=False)
    if not page.sessions:
        st.caption("None yet.")
    with st.container(key="sessions", gap=None):
        for session in page.sessions:
            st.button(
                plain(session["title"]),
                key=f"open_{session['id']}",
                help=f"{session['turns']} turns, last on {session['updated_at'][:10]}",
                type="secondary" if session["id"] == current else "tertiary",
                width="stretch",
                on_click=open_one,
                args=(session["id"],),
            )
    if page.more:
        st.button("Show more", key="more", on_click=_show_more)


def shown_sessions() -> int:
    """How many conversations are listed, at most what the API gives at once."""
    return min(200, int(st.session_state.get("shown_sessions", _MORE)))


def options() -> dict[str, Any]:
    """Fields of a request, from the controls."""
    with st.expander("Settings", icon=":material/tune:"):
        chosen: dict[str, Any] = {
            "temperature": st.slider("Temperature", 0.0, 2.0, 0.7, 0.05, key="temperature"),
            "top_p": st.slider("Top-p", 0.05, 1.0, 0.95, 0.05, key="top_p"),
            "max_tokens": st.number_input(
                "Longest answer, in tokens", 1, _LONGEST_ANSWER, 256, 32, key="max_tokens"
            ),
        }
        seed = st.number_input("Seed", 0, _LARGEST_SEED, None, 1, placeholder="random", key="seed")
        system = st.text_area(
            "System prompt",
            key="system",
            placeholder="Empty: the chat's own, else the model's.",
        )
    if seed is not None:
        chosen["seed"] = seed
    if system.strip():
        chosen["system"] = system
    return chosen


def _show_more() -> None:
    st.session_state.shown_sessions = shown_sessions() + _MORE
