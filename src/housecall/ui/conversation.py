"""The conversation on the page: its turns, and how an answer comes in. Draws nothing."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from housecall.ui.client import Api, ApiDown, ApiError, Event

Status = Literal["waiting", "answering", "complete", "cancelled", "error"]

_NOT_SENT = "Your message was not sent: the API does not answer."
_CUT_OFF = "The connection broke before the answer was complete."


@dataclass(eq=False)
class Turn:
    """A question and its answer, as far as it has come.

    ``text`` is the model's; the guard's message is in ``guard``. ``facts`` is what stands behind
    the answer, once it is there; ``error`` is why it is not.
    """

    question: str
    status: Status = "waiting"
    guard: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def guard_message(self) -> str:
        """What the guard says before anything else."""
        return str(self.guard.get("message", ""))

    def take(self, event: Event) -> None:
        """Take in one event of the stream."""
        match event.name:
            case "guard":
                self.guard = event.data
            case "token":
                self.text += event.data["text"]
            case "error":
                self.fail(event.data["error"]["message"])
            case "done":
                self.settle(event.data["text"], event.data)
                self.status = "complete"

    def settle(self, text: str, facts: Mapping[str, Any]) -> None:
        """Take the whole answer, which begins with the guard's message if there is one."""
        self.guard, self.facts = facts["guard"], facts
        self.text = text.removeprefix(self.guard_message).lstrip("\n")

    def fail(self, why: str) -> None:
        """Keep what has come, and why there is no more."""
        self.status, self.error = "error", why


@dataclass
class Conversation:
    """The turns of one session; without ``session_id`` the API begins one with the first."""

    session_id: str | None = None
    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    _seen: frozenset[str] | None = None

    @classmethod
    def load(cls, api: Api, session_id: str) -> Self:
        """A saved session, each answer with what stands behind it."""
        saved = api.session(session_id)
        conversation = cls(session_id, saved["system"] or "")
        for message in saved["messages"]:
            if message["role"] == "user":
                conversation.turns.append(Turn(message["content"], "cancelled"))
                continue
            turn = conversation.turns[-1]
            turn.settle(message["content"], api.answer(message["answer_id"]))
            turn.status = message["status"]
        return conversation

    def ask(self, api: Api, turn: Turn, options: Mapping[str, Any]) -> Generator[None, None, None]:
        """Get the answer to a turn; yields after each change of it. Closing this cancels it."""
        turn.status = "answering"
        try:
            body = {**options, "message": turn.question}
            if session_id := self._session(api):
                body["session_id"] = session_id
            with closing(api.chat(body)) as events:
                for event in events:
                    turn.take(event)
                    yield
            if turn.status == "answering":
                turn.fail(_CUT_OFF)
            elif turn.status == "complete":
                if turn.facts["turn"] is not None:
                    self.session_id = turn.facts["session_id"]
                # The stream has all but the lineage.
                turn.facts = {**turn.facts, **api.answer(turn.facts["id"])}
        except ApiError as error:
            if turn.status == "answering":
                turn.fail(_NOT_SENT if isinstance(error, ApiDown) else str(error))

    def again(self, turn: Turn) -> None:
        """Let a turn that failed be asked again, as the last."""
        self.turns.remove(turn)
        self.turns.append(Turn(turn.question))

    def settle_interrupted(self) -> None:
        """Mark answers that nobody is reading any more: the page was told to stop."""
        for turn in self.turns:
            if turn.status == "answering":
                turn.status = "cancelled"

    def _session(self, api: Api) -> str | None:
        """The session of the next question; the one that a cut-off question began, if it did.

        An answer names its session only at its end, so that one is found as what is new.
        """
        if self.session_id is None:
            newest = api.sessions().sessions
            if self._seen is None:
                self._seen = frozenset(session["id"] for session in newest)
                return None
            titles = [" ".join(turn.question.split()) for turn in self.turns]
            for session in newest:
                begun_here = any(title.startswith(session["title"]) for title in titles)
                if session["id"] not in self._seen and begun_here:
                    self.session_id = session["id"]
        return self.session_id
