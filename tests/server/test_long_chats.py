"""Conversations of 200 turns over HTTP: what was said of an allergy in turn 2 is still there."""

from __future__ import annotations

from typing import Any

import pytest

from housecall.engines.fake import FakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TURNS = 200
PHRASES = {
    "I'm allergic to penicillin.": "penicillin",
    "I have a bad latex allergy, by the way.": "latex",
    "Penicillin brings me out in hives.": "Penicillin",
    "The doctors told me never to take ibuprofen again.": "ibuprofen",
    "My throat swells up whenever I eat peanuts.": "peanuts",
    "I once had an anaphylactic reaction to shellfish.": "shellfish",
    "Allergies: sulfa drugs": "sulfa",
    "I can't tolerate codeine at all.": "codeine",
    "Last time they gave me amoxicillin I couldn't breathe.": "amoxicillin",
    "I carry an EpiPen because of bee stings.": "bee stings",
    "Aspirin nearly killed me once.": "Aspirin",
    "Is there anything I should avoid, since I'm allergic to eggs?": "eggs",
}


async def talk(client: Any, said: dict[int, str]) -> dict[str, Any]:
    """The last answer of a conversation in which certain turns say certain things."""
    session: dict[str, str] = {}
    body: dict[str, Any] = {}
    for turn in range(1, TURNS + 1):
        message = said.get(turn, f"And what else helps me on day {turn} of this cold?")
        response = await client.post("/chat", json={"message": message, **session})
        body = response.json()
        session = {"session_id": body["session_id"]}
    assert body["turn"] == body["context"]["turns_total"] == TURNS
    assert body["context"]["dropped_turns"] > 2  # it is not there as a turn any more
    return body


@pytest.mark.parametrize("phrase", PHRASES)
async def test_an_allergy_of_turn_2_is_before_the_model_in_turn_200(
    client_of: Any, phrase: str
) -> None:
    engine = FakeEngine(["Rest and drink."], n_ctx=1024)
    body = await talk(await client_of(engine), {2: phrase})
    pinned = [fact for fact in body["context"]["pinned"] if PHRASES[phrase] in fact["text"]]
    assert [fact["turn"] for fact in pinned] == [2]
    assert pinned[0]["text"] in engine.requests[-1].text


async def test_an_allergy_that_was_corrected_is_before_the_model_as_corrected(
    client_of: Any,
) -> None:
    engine = FakeEngine(["Rest and drink."], n_ctx=1024)
    said = {
        2: "I'm allergic to penicillin.",
        9: "Sorry, it was not penicillin, it was amoxicillin.",
    }
    body = await talk(await client_of(engine), said)
    texts = [fact["text"] for fact in body["context"]["pinned"]]
    assert any("allergic to amoxicillin" in text for text in texts)
    assert not any("allergic to penicillin" in text for text in texts)
    assert "allergic to amoxicillin" in engine.requests[-1].text
