"""``housecall generate`` and ``housecall chat``: answers in the terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import click
import httpx

from housecall.answer import Answerer
from housecall.commands.base import build_answerer
from housecall.errors import ConfigError, EngineUnavailable, HousecallError
from housecall.events import Answer, AnswerRequest, Done, Guarded, Token
from housecall.lineage import served_model
from housecall.records import new_id
from housecall.server.wire import GenerateResponse
from housecall.settings import load_settings
from housecall.types import Message, Sampling


def generate(prompt: str, model: str | None, as_json: bool, options: dict[str, Any]) -> None:
    """One answer, streamed to standard output, or one JSON document."""
    if not prompt.strip():
        raise ConfigError("the prompt is empty: give a question")
    asyncio.run(_generate(prompt, model, as_json, options))


async def _generate(prompt: str, model: str | None, as_json: bool, options: dict[str, Any]) -> None:
    async with _answerer(model, options) as answerer:
        messages = (*_system(options), Message("user", prompt))
        request = AnswerRequest(
            kind="generate",
            request_id=new_id("req"),
            messages=messages,
            sampling=sampling(options),
        )
        answer = await say(answerer, request, quiet=as_json)
    if as_json:
        click.echo(GenerateResponse.of(answer).model_dump_json(indent=2))
    else:
        click.echo(
            f"answer {answer.id}; what stands behind it: housecall show {answer.id}", err=True
        )


def chat_here(model: str | None, options: dict[str, Any]) -> None:
    """A conversation with a model that runs inside this process's child."""
    asyncio.run(_chat_here(model, options))


async def _chat_here(model: str | None, options: dict[str, Any]) -> None:
    session_id: str | None = None
    async with _answerer(model, options) as answerer:
        click.echo(f"{answerer.model.name} {answerer.model.format}. An empty line ends.", err=True)
        for line in _lines():
            first = _system(options) if session_id is None else ()
            request = AnswerRequest(
                kind="chat",
                request_id=new_id("req"),
                messages=(*first, Message("user", line)),
                sampling=sampling(options),
                session_id=session_id,
            )
            session_id = (await say(answerer, request)).session_id


def chat_remote(url: str, options: dict[str, Any]) -> None:
    """A conversation through a server's /chat."""
    fixed = {"stream": True, **_wire_sampling(options)}
    if options["system"] is not None:
        fixed["system"] = options["system"]
    session: dict[str, str] = {}
    with httpx.Client(base_url=url, timeout=httpx.Timeout(10, read=None)) as client:
        for line in _lines():
            try:
                _remote_turn(client, {**fixed, **session, "message": line}, session)
            except httpx.HTTPError as error:
                raise EngineUnavailable(
                    f"{url}: {error or type(error).__name__}: is  housecall serve  running there?"
                ) from error


def _remote_turn(client: httpx.Client, body: dict[str, Any], session: dict[str, str]) -> None:
    with client.stream("POST", "/chat", json=body) as response:
        if response.status_code != 200:
            raise HousecallError(json.loads(response.read())["error"]["message"])
        event = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                event = value
            elif field == "data":
                _show_event(event, json.loads(value), session)


def _show_event(event: str, data: dict[str, Any], session: dict[str, str]) -> None:
    if event == "guard" and data["message"]:
        click.secho(data["message"] + "\n", bold=True)
    elif event == "token":
        click.echo(data["text"], nl=False)
    elif event == "done":
        session["session_id"] = data["session_id"]
        click.echo("\n")
    elif event == "error":
        raise HousecallError(data["error"]["message"])


async def say(answerer: Answerer, request: AnswerRequest, *, quiet: bool = False) -> Answer:
    """Print an answer as it comes; returns the whole of it."""
    async with aclosing(answerer.answer(request)) as events:
        async for event in events:
            match event:
                case Guarded(guard) if guard.message and not quiet:
                    click.secho(guard.message + "\n", bold=True)
                case Token(text) if not quiet:
                    click.echo(text, nl=False)
                case Done(answer):
                    if not quiet:
                        click.echo("\n")
                    return answer
    raise HousecallError("the answer ended early: ask again")


@asynccontextmanager
async def _answerer(model: str | None, options: dict[str, Any]) -> AsyncIterator[Answerer]:
    settings = load_settings(parallel=1)
    answerer = build_answerer(served_model(model, ungated=options["ungated"]), settings)
    try:
        await answerer.start()
        yield answerer
    finally:
        await answerer.close()
        answerer.store.close()


def _lines() -> Iterator[str]:
    """What the person types, until an empty line or the end."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _system(options: dict[str, Any]) -> tuple[Message, ...]:
    return (Message("system", options["system"]),) if options["system"] is not None else ()


def sampling(options: dict[str, Any]) -> Sampling:
    """Sampling parameters from command line flags."""
    return Sampling(**{**_wire_sampling(options), "stop": tuple(options["stop"])})


def _wire_sampling(options: dict[str, Any]) -> dict[str, Any]:
    names = (
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repeat_penalty",
        "seed",
        "stop",
    )
    return {name: options[name] for name in names if options[name] not in (None, ())}
