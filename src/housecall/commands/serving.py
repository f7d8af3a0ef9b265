"""``housecall up``, ``serve`` and ``ui``: processes that stay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from housecall.commands.base import build_answerer, build_engine, build_parts, remote_model
from housecall.errors import ConfigError, MissingPackage
from housecall.lineage import RUNS, served_model
from housecall.locks import serving
from housecall.progress import console
from housecall.server.run import bind
from housecall.server.run import serve as run_server
from housecall.settings import load_settings
from housecall.types import Message, Sampling
from housecall.ui.launch import command

if TYPE_CHECKING:
    from fastapi import FastAPI

    from housecall.config import Recipe


def serve(name: str | None, *, ungated: bool, **flags: Any) -> None:
    """The API for one model, until it is told to stop."""
    settings = load_settings(**flags)
    listener = bind(settings.host, settings.port)
    remote = bool(settings.engine_url)
    model = remote_model(name, settings) if remote else served_model(name, ungated=ungated)
    if remote:
        click.echo(f"housecall: {settings.engine_url} answers, and no gate has seen it", err=True)
    engine = build_engine(model, settings)

    def make() -> FastAPI:
        from housecall.server.app import create_app

        return create_app(*build_parts(model, settings, engine))

    with nullcontext() if remote or model.run is None else serving(model.path.parents[2]):
        run_server(make, settings, listener, engine)


def ui(url: str, port: int) -> None:
    """The Streamlit UI for an API, until it is told to stop."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url}: give the API's address, such as http://127.0.0.1:8000")
    bind("127.0.0.1", port).close()
    with _ui_process(url, port) as process:
        code = process.wait()
    if code > 0:
        sys.exit(1)  # Streamlit has said why


def up(
    recipe_name: str,
    overrides: tuple[str, ...],
    *,
    port: int | None,
    ui_port: int | None,
    once: bool,
) -> None:
    """The journey from nothing to a chat: run what is not done, answer once, serve."""
    from housecall.pipeline import STEPS, is_done, open_run  # here: `serve` starts without it
    from housecall.recipe import load_recipe

    recipe = load_recipe(recipe_name, overrides)
    settings = load_settings(port=port)
    if not once:  # found out now, not after minutes of training
        bind(settings.host, settings.port).close()
        if ui_port is not None:
            bind("127.0.0.1", ui_port, "--ui-port").close()
    path = RUNS / recipe.name
    run = open_run(path, recipe)
    if not all(is_done(run, step, verify=False) for step in STEPS):  # what is served is verified
        _run_apart(recipe_name, overrides)
    asyncio.run(_ask_once(recipe, path))
    if once:
        return
    url = f"http://{settings.host}:{settings.port}"
    if ui_port is None:
        console().print(f"API {url}/docs   (Ctrl-C stops)")
        serve(str(path), ungated=False, port=port)
        return
    with _ui_process(url, ui_port):
        console().print(f"chat http://127.0.0.1:{ui_port}   API {url}/docs   (Ctrl-C stops)")
        serve(str(path), ungated=False, port=port)


def _run_apart(recipe_name: str, overrides: tuple[str, ...]) -> None:
    """The pipeline in a process of its own, so that the server does not carry torch's memory."""
    pipeline = [sys.executable, "-m", "housecall", "run", recipe_name]
    for override in overrides:
        pipeline += ["--set", override]
    process = subprocess.Popen(pipeline)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal sent it to both: let the run say its last word
        process.wait()
        raise
    if code:
        sys.exit(code if code > 0 else 1)


async def _ask_once(recipe: Recipe, path: Path) -> None:
    """One question to the promoted model, its answer, and what stands behind it."""
    from housecall.commands.asking import say
    from housecall.commands.showing import print_chain
    from housecall.events import AnswerRequest
    from housecall.records import new_id

    settings = load_settings(parallel=1)
    answerer = build_answerer(served_model(str(path)), settings)
    try:
        await answerer.start()
        console().print(f"\n[bold]{recipe.question}[/bold]")
        request = AnswerRequest(
            kind="generate",
            request_id=new_id("req"),
            messages=(Message("user", recipe.question),),
            sampling=Sampling(max_tokens=200, seed=1),  # the same answer in every call
        )
        answer = await say(answerer, request)
        print_chain(answerer.store.answer(answer.id))
    finally:
        await answerer.close()
        answerer.store.close()


@contextmanager
def _ui_process(url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Streamlit in a child process that ends with this one."""
    if util.find_spec("streamlit") is None:
        raise MissingPackage("the UI needs Streamlit", "'housecall[ui]'")
    environment = {**os.environ, "HOUSECALL_URL": url}
    process = subprocess.Popen(command(port), env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
