"""Saved conversations over HTTP: renamed, searched, exported, deleted, and whose they are."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from housecall.engines.fake import FakeEngine
from serving import client_for

pytestmark = pytest.mark.anyio

ANN, BOB = ({"Authorization": f"Bearer {key}"} for key in ("key of Ann", "key of Bob"))


async def chat(client: httpx.AsyncClient, message: str, **fields: Any) -> dict[str, Any]:
    response = await client.post("/chat", json={"message": message, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def titles(client: httpx.AsyncClient, **query: Any) -> list[str]:
    found = (await client.get("/sessions", params=query)).json()
    return [session["title"] for session in found["sessions"]]


async def test_a_session_is_renamed(client: httpx.AsyncClient) -> None:
    session_id = (await chat(client, "I cough."))["session_id"]
    renamed = await client.patch(f"/sessions/{session_id}", json={"title": " My\n cough "})
    assert (renamed.status_code, renamed.json()["title"]) == (200, "My cough")
    await chat(client, "Still.", session_id=session_id)
    assert await titles(client) == ["My cough"]
    for title in ("", "  ", "x" * 81, None, 5):
        refused = await client.patch(f"/sessions/{session_id}", json={"title": title})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "title")
    unknown = await client.patch("/sessions/ses_nope", json={"title": "x"})
    assert unknown.status_code == 404


async def test_sessions_are_searched(client: httpx.AsyncClient) -> None:
    await chat(client, "My throat is sore.")
    second = await chat(client, "Hello")
    await chat(client, "A 100% sure thing", session_id=second["session_id"])
    assert await titles(client, q="THROAT") == ["My throat is sore."]
    assert await titles(client, q="100%") == ["Hello"]
    assert await titles(client, q="0% s") == ["Hello"]
    assert await titles(client, q="0_") == []
    assert len(await titles(client, q="said")) == 2
    assert (await client.get("/sessions", params={"q": "x" * 201})).status_code == 422


async def test_a_session_is_exported(client: httpx.AsyncClient) -> None:
    first = await chat(client, "# I cough.\n**doctor**, today")
    await client.post(f"/answers/{first['id']}/feedback", json={"rating": "down", "comment": "no"})
    url = f"/sessions/{first['session_id']}/export"
    file = await client.get(url)
    body = file.json()
    assert [message["content"] for message in body["messages"]] == [
        "# I cough.\n**doctor**, today",
        "you said: # I cough.\n**doctor**, today",
    ]
    assert [answer["id"] for answer in body["answers"]] == [first["id"]]
    assert [feedback["comment"] for feedback in body["feedback"]] == ["no"]
    assert re.fullmatch(
        r'attachment; filename="housecall-\d{4}-\d\d-\d\d-[0-9a-f]{6}\.json"',
        file.headers["content-disposition"],
    )
    text = await client.get(url, params={"format": "markdown"})
    assert text.headers["content-type"].startswith("text/markdown")
    assert "\n> # I cough.\n> **doctor**, today\n" in text.text
    assert text.text.count("\n**You**, ") == 1
    assert (await client.get(url, params={"format": "pdf"})).status_code == 422
    assert (await client.get("/sessions/ses_nope/export")).status_code == 404


async def test_a_deletion_can_be_taken_back_for_a_while(client: httpx.AsyncClient) -> None:
    answer = await chat(client, "I cough.")
    url = f"/sessions/{answer['session_id']}"
    assert (await client.delete(url)).status_code == 204
    again = {"message": "Hello?", "session_id": answer["session_id"]}
    for response in (
        await client.get(url),
        await client.get(f"{url}/export"),
        await client.delete(url),
        await client.patch(url, json={"title": "x"}),
        await client.post("/chat", json=again),
        await client.get(f"/answers/{answer['id']}"),
        await client.post(f"/answers/{answer['id']}/feedback", json={"rating": "up"}),
    ):
        assert response.status_code == 404
    assert await titles(client) == []
    assert (await client.post(f"{url}/restore")).json()["title"] == "I cough."
    assert (await client.post(f"{url}/restore")).status_code == 404  # there is nothing to restore
    assert (await chat(client, "Hello?", session_id=answer["session_id"]))["turn"] == 2


async def test_what_is_deleted_leaves_the_disk(client_of: Any, tmp_path: Path) -> None:
    client = await client_of(undo_seconds=0)
    words = "a very secret illness"
    answer = await chat(client, words)
    comment = {"rating": "up", "comment": f"about {words}"}
    await client.post(f"/answers/{answer['id']}/feedback", json=comment)
    url = f"/sessions/{answer['session_id']}"
    await client.patch(url, json={"title": words.upper()})

    def on_disk() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob("housecall.db*"))

    assert b"very secret" in on_disk()
    assert (await client.delete(url)).status_code == 204
    assert b"very secret" not in on_disk().lower().replace(b"VERY", b"very")
    assert (await client.post(f"{url}/restore")).status_code == 404
    assert (await client.get(f"/answers/{answer['id']}")).status_code == 404


async def test_feedback_is_kept_with_its_answer(client: httpx.AsyncClient) -> None:
    answer = await chat(client, "I cough.")
    url = f"/answers/{answer['id']}/feedback"
    assert (await client.get(url)).status_code == 404
    for rating, comment in (("up", ""), ("down", "too short")):
        given = await client.post(url, json={"rating": rating, "comment": comment})
        assert given.status_code == 200
        assert (given.json()["rating"], given.json()["comment"]) == (rating, comment)
        assert (await client.get(url)).json() == given.json()
    for body in ({}, {"rating": "great"}, {"rating": "up", "comment": "x" * 4001}, {"stars": 5}):
        assert (await client.post(url, json=body)).status_code == 422
    assert (await client.post("/answers/ans_no/feedback", json={"rating": "up"})).status_code == 404


async def test_another_keys_data_is_not_there(client_of: Any) -> None:
    client = await client_of(api_keys=("key of Ann", "key of Bob"))

    async def ask(method: str, path: str, headers: Any, **options: Any) -> httpx.Response:
        response: httpx.Response = await client.request(method, path, headers=headers, **options)
        return response

    answer = (await ask("POST", "/chat", ANN, json={"message": "I cough."})).json()
    one = (await ask("POST", "/generate", ANN, json={"prompt": "Hello"})).json()
    url = f"/sessions/{answer['session_id']}"
    attempts = [
        ("GET", url, None),
        ("GET", f"{url}/export", None),
        ("PATCH", url, {"title": "mine"}),
        ("POST", f"{url}/restore", None),
        ("DELETE", url, None),
        ("POST", "/chat", {"message": "Hi", "session_id": answer["session_id"]}),
        ("GET", f"/answers/{answer['id']}", None),
        ("GET", f"/answers/{one['id']}", None),
        ("POST", f"/answers/{answer['id']}/feedback", {"rating": "up"}),
        ("GET", f"/answers/{answer['id']}/feedback", None),
    ]
    unknown = re.compile(r"(ses|ans|req)_[0-9a-f]{32}")
    for method, path, body in attempts:
        refused = await ask(method, path, BOB, json=body)
        nowhere = await ask(method, unknown.sub(r"\1_nope", path), BOB, json=body)
        assert refused.status_code == 404, path
        assert refused.json()["error"]["code"] == nowhere.json()["error"]["code"] == "not_found"
    assert (await ask("GET", "/sessions", BOB)).json()["sessions"] == []
    assert (await ask("GET", "/sessions?q=cough", BOB)).json()["sessions"] == []
    assert (await ask("GET", f"/sessions?before={answer['session_id']}", BOB)).status_code == 404
    assert len((await ask("GET", url, ANN)).json()["messages"]) == 2
    assert (await ask("GET", f"/answers/{one['id']}", ANN)).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "ses_%00",
        "x" * 300,
        "'; DROP TABLE x",
        "é",
    ],
)
async def test_ids_can_not_lead_elsewhere(client: httpx.AsyncClient, name: str) -> None:
    for path in (f"/sessions/{name}", f"/answers/{name}", f"/sessions/{name}/export"):
        assert (await client.get(path)).status_code == 404
    body = {"message": "Hi", "session_id": name}
    assert (await client.post("/chat", json=body)).status_code == 404


async def test_a_stream_says_at_once_which_session_it_is(client: httpx.AsyncClient) -> None:
    body = {"message": "I cough.", "stream": True}
    response = await client.post("/chat", json=body)
    session_id = response.headers["x-session-id"]
    assert f'"session_id": "{session_id}"' in response.text
    assert "x-session-id" not in (await client.post("/generate", json={"prompt": "Hi"})).headers


async def test_a_long_chat_says_what_it_dropped_and_what_it_pinned(client_of: Any) -> None:
    engine = FakeEngine(["All right then."], n_ctx=256)
    client = await client_of(engine)
    session_id = None
    fields: dict[str, Any] = {"max_tokens": 16}
    for i in range(1, 41):
        message = "I'm allergic to penicillin." if i == 2 else f"This is my message number {i}."
        body = await chat(client, message, **fields)
        session_id = fields["session_id"] = body["session_id"]
        context = body["context"]
        assert context["turns_total"] == context["dropped_turns"] + context["turns_in_window"] == i
        assert ("penicillin" in engine.requests[-1].text) == (i >= 2)
    assert context["pinned"] == [{"text": "I'm allergic to penicillin", "turn": 2}]
    assert list(context) == [
        *("n_ctx", "prompt_tokens", "turns_total", "turns_in_window", "dropped_turns", "pinned")
    ]
    saved = (await client.get(f"/sessions/{session_id}")).json()
    assert saved["pinned"] == context["pinned"]
    assert saved["first_turn"] == context["dropped_turns"] + 1
    assert len(saved["messages"]) == 80
    lineage = (await client.get(f"/answers/{body['id']}")).json()
    assert lineage["context"]["pinned"] == [{"turn": 2}]


async def test_the_window_survives_a_restart(client_of: Any, app_of: Any) -> None:
    client = await client_of(FakeEngine(["All right."], n_ctx=160))
    fields: dict[str, Any] = {"max_tokens": 16}
    for i in range(20):
        body = await chat(client, f"This is my message number {i}.", **fields)
        fields["session_id"] = body["session_id"]
    app = app_of(FakeEngine(n_ctx=160))
    async with app.router.lifespan_context(app), client_for(app) as later:
        while (await later.get("/ready")).status_code == 503:
            await asyncio.sleep(0.001)
        after = await chat(later, "And now?", **fields)
    assert after["context"]["dropped_turns"] >= body["context"]["dropped_turns"] > 0
