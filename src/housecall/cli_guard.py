"""``housecall guard``: the medical safety filter alone."""

from __future__ import annotations

import click

from housecall.cli_options import InOrder, json_option


@click.group(cls=InOrder)
def guard() -> None:
    """The medical safety filter alone."""


@guard.command()
@click.argument("text", required=False)
@click.option("--jsonl", type=click.Path(), help="Read one JSON object with a text per line.")
@json_option
def check(text: str | None, jsonl: str | None, as_json: bool) -> None:
    """What the filter finds in TEXT."""
    from housecall.commands import guarding

    if (text is None) == (jsonl is None):
        raise click.UsageError("give either TEXT or --jsonl FILE")
    if jsonl is not None:
        guarding.guard_file(jsonl)
    else:
        guarding.guard_text(str(text), as_json)


@guard.command(name="eval")
@click.argument("file", required=False, type=click.Path())
@click.option("--misses", is_flag=True, help="Print the messages that were read wrongly.")
@json_option
def guard_eval(file: str | None, misses: bool, as_json: bool) -> None:
    """Recall and false alarms on labelled messages (FILE, else those that ship)."""
    from housecall.commands import guarding

    guarding.guard_eval(file, misses, as_json)
