"""The command line: one short function a verb, heavy imports inside it.

Exit codes: 0 done, 1 a clear error in one line, 2 wrong usage, 3 the gate refused.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

import housecall
from housecall.cli_bench import bench, doctor
from housecall.cli_guard import guard
from housecall.cli_options import InOrder, json_option, sampling_options, set_option
from housecall.errors import HousecallError

# No tracker, hub client or UI of a library may report or look anything up on its own.
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_DISABLED": "true",
    "WANDB_MODE": "disabled",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


_PORT = click.IntRange(1, 65535)


def main() -> None:
    """Run the command line."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        sys.exit(cli.main(args=arguments, prog_name="housecall", standalone_mode=False))
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted: what was finished is kept; the same command goes on from there")
    except HousecallError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        reason = (error.strerror or str(error)).lower()
        _fail(f"{error.filename or 'disk'}: {reason}; nothing made before is lost")


def _fail(message: str, code: int = 1) -> None:
    click.echo(f"housecall: {message}", err=True)
    sys.exit(code)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(housecall.__version__, message="%(version)s")
def cli() -> None:
    """From a data set to a private, guarded LLM API on one machine.

    \b
    housecall up            the whole journey on what comes with the package, then chat
    housecall run RECIPE    only make a model
    housecall serve         only serve the newest one

    RUN is the name or folder of a run; left out, it is the newest (to serve, measure or export:
    the newest that got so far). --debug shows tracebacks.
    """


@cli.command()
@click.argument("recipe", default="demo")
@click.option("--port", type=int, default=None, help="Port of the API.  [default: 8000]")
@click.option("--ui-port", type=_PORT, default=8501, show_default=True, help="Port of the UI.")
@click.option("--no-ui", is_flag=True, help="Only the API.")
@click.option("--once", is_flag=True, help="Print one answer with its lineage and stop.")
@set_option
def up(
    recipe: str,
    port: int | None,
    ui_port: int,
    no_ui: bool,
    once: bool,
    overrides: tuple[str, ...],
) -> None:
    """Run RECIPE (skipping what is done), answer one question, then serve API and UI."""
    from housecall.commands import serving

    serving.up(recipe, overrides, port=port, ui_port=None if no_ui else ui_port, once=once)


@cli.command()
@click.argument("recipe")
@click.option("--out", metavar="FOLDER", help="Where the run goes.  [default: runs/NAME]")
@set_option
@click.option("--from", "start", metavar="STEP", help="Do this step and all after it anew.")
@click.option("--to", "stop", metavar="STEP", help="Stop after this step.")
@json_option
def run(
    recipe: str,
    out: str | None,
    overrides: tuple[str, ...],
    start: str | None,
    stop: str | None,
    as_json: bool,
) -> None:
    """Run the pipeline: prepare train merge quantize gate bench.

    RECIPE is demo, tinyllama-chatdoctor or a YAML file. Steps that are done are skipped.
    """
    from housecall.commands import making

    making.run(recipe, out, overrides, start, stop, as_json)


def _step_command(name: str, text: str) -> None:
    @click.argument("run", required=False)
    @set_option
    @json_option
    def command(run: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
        from housecall.commands import making

        making.step(name, run, overrides, as_json)

    cli.command(name, help=text)(command)


_step_command("prepare", "Base model and data set into RUN: check, split, count.")
_step_command("train", "Fine-tune an adapter (QLoRA); goes on after an interruption.")
_step_command("merge", "Put the adapter into the base model.")
_step_command("quantize", "Make every format of the recipe.")
_step_command("gate", "Measure what each format lost, and promote the best.")


cli.add_command(bench)


@cli.command()
@click.argument("model", required=False, metavar="[RUN|FILE.gguf]")
@click.option("--host", default=None, help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, default=None, help="Port to listen on.  [default: 8000]")
@click.option("--ctx", type=int, default=None, help="Window of one conversation, in tokens.")
@click.option("--parallel", type=int, default=None, help="Answers made at once.")
@click.option("--engine-url", default=None, help="An OpenAI-compatible server that answers.")
@click.option("--ungated", is_flag=True, help="Serve a variant that has not passed the gate.")
def serve(model: str | None, ungated: bool, **flags: Any) -> None:
    """Serve the API for the variant that passed the gate.

    With --engine-url, MODEL is the name of a model of that server.
    """
    from housecall.commands import serving

    serving.serve(model, ungated=ungated, **flags)


@cli.command()
@click.argument("prompt")
@click.argument("model", required=False, metavar="[RUN|FILE.gguf]")
@sampling_options
@json_option
def generate(prompt: str, model: str | None, as_json: bool, **options: Any) -> None:
    """Answer PROMPT once, without a server; - reads it from standard input."""
    from housecall.commands import asking

    text = sys.stdin.read() if prompt == "-" else prompt
    asking.generate(text, model, as_json, options)


@cli.command()
@click.argument("model", required=False, metavar="[RUN|FILE.gguf]")
@click.option("--url", default=None, help="Chat through a server that is running.")
@sampling_options
def chat(model: str | None, url: str | None, **options: Any) -> None:
    """Chat in the terminal; an empty line or Ctrl-D ends it."""
    from housecall.commands import asking

    if url:
        asking.chat_remote(url, options)
    else:
        asking.chat_here(model, options)


@cli.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The API.")
@click.option("--port", type=_PORT, default=8501, show_default=True, help="Port of the UI.")
def ui(url: str, port: int) -> None:
    """Serve the web UI for an API that is running."""
    from housecall.commands import serving

    serving.ui(url, port)


@cli.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List runs and their variants."""
    from housecall.commands import showing

    showing.ls(as_json)


@cli.command()
@click.argument("what", metavar="PATH|ANSWER_ID")
@json_option
def show(what: str, as_json: bool) -> None:
    """Show what stands behind a run, an artifact or an answer, back to the data."""
    from housecall.commands import showing

    showing.show(what, as_json)


@cli.command()
@click.argument("run", required=False)
@click.option(
    "--format",
    "fmt",
    type=click.Choice(["zip", "ollama", "hf"]),
    default="zip",
    show_default=True,
    help="zip: to import elsewhere; ollama: GGUF and Modelfile; hf: merged model and card.",
)
@click.option(
    "--out", metavar="PATH", help="Where it goes.  [default: RUN.zip, RUN-ollama, RUN-hf]"
)
def export(run: str | None, fmt: str, out: str | None) -> None:
    """Write what RUN serves, with its history, for another machine or program."""
    from housecall.commands import moving

    moving.export(run, fmt, out)


@cli.command("import")
@click.argument("file", metavar="FILE.zip")
@click.option("--out", metavar="FOLDER", help="Where the run goes.  [default: runs/NAME]")
def import_(file: str, out: str | None) -> None:
    """Unpack an exported run: checked file by file, whole or not at all."""
    from housecall.commands import moving

    moving.import_(file, out)


@cli.command()
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(run: str, yes: bool) -> None:
    """Remove RUN, unless another run or a server needs it."""
    from housecall.commands import moving

    moving.remove(run, yes)


cli.add_command(guard)


cli.add_command(doctor)
