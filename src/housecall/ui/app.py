"""The chat page. Streamlit runs this file from top to bottom on every change.

``HOUSECALL_URL`` is the API's address and ``HOUSECALL_API_KEY`` its key, if it asks for one.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import streamlit as st

from housecall.ui import sidebar, view
from housecall.ui.client import Api, ApiDown, ApiError
from housecall.ui.conversation import Conversation, Turn
from housecall.ui.escape import plain

_POLL_SECONDS = 2


@dataclass(frozen=True)
class State:
    """What the API says of itself; ``refusal`` is why it answers nothing at all."""

    down: bool = False
    not_ready: str = ""
    refusal: str = ""


def connect() -> Api:
    """The API that the environment names."""
    url = os.environ.get("HOUSECALL_URL", "http://127.0.0.1:8000")
    return Api(url, os.environ.get("HOUSECALL_API_KEY", ""))


def state_of(api: Api) -> State:
    """Ask the API how it is."""
    try:
        return State(not_ready=api.not_ready())
    except ApiDown:
        return State(down=True)
    except ApiError as error:
        return State(refusal=str(error))


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="Housecall", page_icon="🩺")
    with connect() as api:
        conversation = current(api)
        view.heading()
        state = state_of(api)
        options = side(api, state, conversation)
        if message := st.chat_input("Ask a health question", submit_mode="stop"):
            conversation.turns.append(Turn(message))
        answered = chat(api, conversation, options)
        notice(api, state)
    if answered:
        st.rerun()  # the sidebar has a new conversation, or a new order
    if state != State():
        st.fragment(watch, run_every=_POLL_SECONDS)(state)


def current(api: Api) -> Conversation:
    """The conversation on the page; another one if the user has just chosen so."""
    memory = st.session_state
    chosen = memory.pop("chosen", None)
    if chosen is not None:
        try:
            memory.conversation = Conversation.load(api, chosen) if chosen else Conversation()
            memory.system = memory.conversation.system
        except ApiError as error:
            st.toast(plain(error), icon=":material/error_outline:")
    conversation: Conversation = memory.setdefault("conversation", Conversation())
    conversation.settle_interrupted()
    return conversation


def choose(session_id: str) -> None:
    """Open a conversation on the next run; an empty id is a new one."""
    st.session_state.chosen = session_id


def side(api: Api, state: State, conversation: Conversation) -> dict[str, Any]:
    """Draw the sidebar; gives the options for a request."""
    with st.sidebar:
        st.button(
            "New chat",
            icon=":material/edit_square:",
            key="new_chat",
            width="stretch",
            on_click=choose,
            args=("",),
        )
        about = st.container()
        options = sidebar.options()
        if not (state.down or state.refusal):
            try:
                with about:
                    sidebar.model_state(api.models(), state.not_ready)
                page = api.sessions(sidebar.shown_sessions())
                sidebar.sessions(page, conversation.session_id, choose)
            except ApiError as error:
                st.warning(plain(error))
        return options


def chat(api: Api, conversation: Conversation, options: dict[str, Any]) -> bool:
    """Draw the turns, and get the answer that is waited for; gives whether there was one."""
    answered = False
    for turn in conversation.turns:
        view.question(turn)
        with st.chat_message("assistant", avatar=":material/stethoscope:"):
            if turn.status == "waiting":
                answered = True
                with closing(conversation.ask(api, turn, options)) as changes:
                    view.answer(turn, changes)
            else:
                view.answer(turn, ())
            if turn.status == "error" and turn is conversation.turns[-1]:
                view.asking_again(turn, conversation.again)
    return answered


def notice(api: Api, state: State) -> None:
    """What keeps the whole page from working, and what to do."""
    if state.down:
        view.api_down(api.url, start_command(api.url))
    elif state.refusal:
        st.error(plain(state.refusal), icon=":material/error_outline:")


def start_command(url: str) -> str:
    """The command that starts an API at ``url``."""
    address = urlsplit(url)
    port = f" --port {address.port}" if address.port not in (None, 8000) else ""
    return f"housecall serve{port}"


def watch(last: State) -> None:
    """Draw the page again as soon as the API is better or worse than it was."""
    with connect() as api:
        if state_of(api) != last:
            st.rerun()


if __name__ == "__main__":
    main()
