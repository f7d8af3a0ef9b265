"""A database that has gone or can't be written: a clear 503, no crash, and emergencies answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from housecall.engines.fake import FakeEngine

pytestmark = pytest.mark.anyio


ONE_QUESTION: dict[str, dict[str, Any]] = {
    "/generate": {"prompt": "I cough."},
    "/v1/chat/completions": {
        "model": "demo",
        "messages": [{"role": "user", "content": "I cough."}],
    },
}
"""What is asked without a session: only its answer is saved."""


def refused(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "database_unavailable"), error
    assert response.headers["retry-after"] == "5"
    message: str = error["message"]
    return message


async def ask_everything(client: httpx.AsyncClient, session_id: str, answer_id: str) -> list[str]:
    """The refusals of all that needs the database."""
    chat = {"message": "I cough.", "session_id": session_id}
    return [
        refused(await client.post("/chat", json={"message": "Hello"})),
        refused(await client.post("/chat", json=chat)),
        refused(await client.post("/chat", json={**chat, "stream": True})),
        refused(await client.patch(f"/sessions/{session_id}", json={"title": "x"})),
        refused(await client.delete(f"/sessions/{session_id}")),
        refused(await client.post(f"/answers/{answer_id}/feedback", json={"rating": "up"})),
    ]


async def test_a_database_file_that_has_gone(client_of: Any, tmp_path: Path) -> None:
    engine = FakeEngine()
    client = await client_of(engine)
    first = (await client.post("/chat", json={"message": "I cough."})).json()
    file = tmp_path / "housecall.db"
    moved = file.rename(tmp_path / "elsewhere.db")
    for message in await ask_everything(client, first["session_id"], first["id"]):
        assert message == f"the database failed: the file {file.name} has gone"
    assert "has gone" in refused(await client.get("/sessions"))
    asked = len(engine.requests)
    for path, body in ONE_QUESTION.items():
        refused(await client.post(path, json=body))
    assert len(engine.requests) == asked, "an answer was made that can't be saved"
    emergency = await client.post("/chat", json={"message": "I have chest pain"})
    assert (emergency.status_code, emergency.json()["turn"]) == (200, None)
    assert emergency.json()["text"].startswith("Call 112 now.")
    assert (await client.get("/health")).status_code == 200
    assert not file.exists()

    moved.rename(file)
    again = {"message": "I cough.", "session_id": first["session_id"]}
    assert (await client.post("/chat", json=again)).json()["turn"] == 2
    for path, body in ONE_QUESTION.items():
        assert (await client.post(path, json=body)).status_code == 200


async def test_a_database_that_is_read_only(client_of: Any) -> None:
    client = await client_of()
    first = (await client.post("/chat", json={"message": "I cough."})).json()
    engine = client._transport.app.state.answerer.store._engine
    event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA query_only = 1"))
    engine.dispose()
    for message in await ask_everything(client, first["session_id"], first["id"]):
        assert message == "the database failed: attempt to write a readonly database"
    assert len((await client.get("/sessions")).json()["sessions"]) == 1
    emergency = await client.post("/chat", json={"message": "I have chest pain"})
    assert emergency.status_code == 200
