"""What several verbs of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


class InOrder(click.Group):
    """Lists commands as they stand here: in the order a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of their definition."""
        return list(self.commands)


def json_option(command: _Command) -> _Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def set_option(command: _Command) -> _Command:
    """``--set``, any number of times."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="A.B=VALUE",
        help="Change a key of the recipe; may be given more than once.",
    )(command)


def sampling_options(command: _Command) -> _Command:
    """How an answer is made, and by which model."""
    for option in (
        click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True),
        click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True),
        click.option("--top-p", type=click.FloatRange(0, 1), default=0.95, show_default=True),
        click.option("--top-k", type=click.IntRange(0), default=40, show_default=True),
        click.option("--min-p", type=click.FloatRange(0, 1), default=0.05, show_default=True),
        click.option("--repeat-penalty", type=click.FloatRange(0.1, 2), default=1.0),
        click.option("--seed", type=int, default=None, help="The same text for the same seed."),
        click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text."),
        click.option("--system", default=None, help="System prompt in place of the model's own."),
        click.option("--ungated", is_flag=True, help="Use a variant that has not passed."),
    ):
        command = option(command)
    return command
