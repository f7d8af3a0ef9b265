"""Saved conversations: listed, read, renamed, exported, deleted and restored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from housecall.records import ExportedSession, SavedSession, SessionInfo
from housecall.server.errors import responses
from housecall.server.streams import Owner, Served
from housecall.server.wire import RenameRequest, SessionList

router = APIRouter(prefix="/sessions", tags=["sessions"])

_Words = Annotated[str | None, Query(max_length=200, description="Words of a title or message.")]
_Before = Annotated[str | None, Query(description="The id of the last session seen.")]


@router.get("", responses=responses(401, 404, 422, 503))
def sessions(
    answerer: Served,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: _Before = None,
    q: _Words = None,
) -> SessionList:
    """Saved conversations, newest first."""
    found = answerer.store.sessions(limit=limit + 1, before=before, words=q, owner=owner)
    more = len(found) > limit
    return SessionList(sessions=found[:limit], next=found[limit - 1].id if more else None)


@router.get("/{session_id}", responses=responses(401, 404, 503))
def session(session_id: str, answerer: Served, owner: Owner) -> SavedSession:
    """One conversation with its messages."""
    return answerer.store.session(session_id, owner)


@router.patch("/{session_id}", responses=responses(401, 404, 413, 503))
def rename(session_id: str, body: RenameRequest, answerer: Served, owner: Owner) -> SessionInfo:
    """Give a conversation another title."""
    return answerer.store.rename_session(session_id, body.title, owner)


@router.delete("/{session_id}", status_code=204, responses=responses(401, 404, 409, 503))
async def delete(session_id: str, request: Request, answerer: Served, owner: Owner) -> None:
    """Delete a conversation and the lineage of its answers.

    It is out of sight at once. For HOUSECALL_UNDO_SECONDS it can be restored; then it is erased.
    """
    await to_thread.run_sync(answerer.store.delete_session, session_id, owner)
    if not request.app.state.settings.undo_seconds:
        await request.app.state.housekeeping.erase()


@router.post("/{session_id}/restore", responses=responses(401, 404, 503))
def restore(session_id: str, answerer: Served, owner: Owner) -> SessionInfo:
    """Take back a deletion, as long as the conversation was not erased."""
    return answerer.store.restore_session(session_id, owner)


@router.get(
    "/{session_id}/export",
    response_model=ExportedSession,
    responses=responses(401, 404, 422, 503)
    | {200: {"content": {"text/markdown": {"example": "# Sore throat\n\n**You**, ..."}}}},
)
def export(
    session_id: str,
    answerer: Served,
    owner: Owner,
    format: Annotated[Literal["json", "markdown"], Query(description="Of the file.")] = "json",
) -> Response:
    """One conversation as a file: with all that stands behind its answers, or to be read."""
    found = answerer.store.export(session_id, owner)
    as_json = format == "json"
    content = found.model_dump_json(indent=2) if as_json else _markdown(found)
    kind, ending = ("application/json", "json") if as_json else ("text/markdown", "md")
    name = f"housecall-{found.created_at:%Y-%m-%d}-{found.id[-6:]}.{ending}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, headers=headers, media_type=f"{kind}; charset=utf-8")


def _markdown(found: ExportedSession) -> str:
    """A conversation to read; nothing a message holds can look like one of our headings."""
    now = datetime.now(UTC)
    lines = [
        f"# {' '.join(found.title.split())}",
        "",
        f"Housecall conversation {found.id}, exported {now:%Y-%m-%d %H:%M} UTC. Its answers were "
        "written by a language model and are no medical advice.",
    ]
    for message in found.messages:
        who = "You" if message.role == "user" else found.model
        cut = "" if message.status == "complete" else f" ({message.status})"
        lines += ["", f"**{who}**, {message.created_at:%Y-%m-%d %H:%M} UTC{cut}", ""]
        lines += [f"> {line}".rstrip() for line in message.content.splitlines() or [""]]
    return "\n".join(lines) + "\n"
