"""``housecall bench`` and ``housecall doctor``: what this machine can do, and what it has."""

from __future__ import annotations

import click

from housecall.cli_options import json_option, set_option


@click.command()
@click.argument("run", required=False)
@click.option("--quick", is_flag=True, help="A look in a minute or two, into RUN/bench-quick.")
@click.option("--compare", metavar="OTHER", help="Show RUN and OTHER, both measured, side by side.")
@click.option("--against", metavar="URL", help="Measure an OpenAI-compatible server too.")
@click.option("--against-model", metavar="NAME", help="Its model.  [default: its first]")
@set_option
@json_option
def bench(
    run: str | None,
    quick: bool,
    compare: str | None,
    against: str | None,
    against_model: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure speed, memory and answers of every model of RUN here, and write a report."""
    from housecall.commands import benching

    if compare is not None:
        if quick or against or overrides:
            raise click.UsageError("--compare only shows what was measured: give it alone")
        benching.compare(run, compare, as_json)
        return
    benching.bench(
        run,
        overrides,
        quick=quick,
        against=against,
        against_model=against_model,
        as_json=as_json,
    )


@click.command()
@click.argument("model", required=False, metavar="[RUN|FILE.gguf]")
@click.option("--tune", is_flag=True, help="Find the engine's fastest settings with MODEL.")
@json_option
def doctor(model: str | None, tune: bool, as_json: bool) -> None:
    """What this machine has, and what is missing for what.

    With --tune, a few minutes of measuring; serve, generate, chat and bench use what is found.
    """
    from housecall.commands import checking

    if model is not None and not tune:
        raise click.UsageError("MODEL is what --tune measures with: give both, or none")
    if tune:
        checking.tune(model)
    checking.doctor(as_json)
