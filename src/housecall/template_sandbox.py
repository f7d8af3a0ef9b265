"""Chat templates are programs out of model files: they run in Jinja's sandbox, with a budget.

The sandbox keeps a template from Python's inside; the budget ends loops and calls that would not
end, so that a broken or hostile model file is an error and not a server that hangs.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from housecall.errors import ConfigError

BUDGET = 100_000
"""Turns of loops, calls and numbers of ranges in one rendering."""

LARGEST = 1_000_000
"""What a multiplication may give: a number, or the length of a text."""

_spent: ContextVar[int] = ContextVar("_spent", default=0)


def compile_template(source: str) -> Template:
    """A template ready to ``render``. Raises ConfigError when it does not compile."""
    try:
        return _environment().from_string(source)
    except Exception as error:  # such as too deep for Python's own compiler
        raise ConfigError(f"the model's chat template does not compile: {error}") from error


def render(template: Template, **values: Any) -> str:
    """The text of a template.

    Raises ConfigError when it refuses the values, reaches for Python's inside or does not end.
    """
    token = _spent.set(0)
    try:
        return template.render(**values)
    except SecurityError as error:
        raise ConfigError(f"the model's chat template is not safe to run: {error}") from error
    except Exception as error:  # whatever its program runs into
        raise ConfigError(f"the model's chat template refused the messages: {error}") from error
    finally:
        _spent.reset(token)


class _Counting(CodeGenerator):
    """Compiles each loop so that every turn of it is charged."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 (Jinja's name)
        charge = nodes.Call(nodes.EnvironmentAttribute("charge"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(charge).set_lineno(node.lineno))
        super().visit_For(node, frame)


class _Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _Counting
    intercepted_binops = frozenset({"*", "**"})

    def charge(self, steps: int = 0) -> None:
        """Take from the budget of the rendering under way."""
        _spent.set(_spent.get() + steps)
        if _spent.get() > BUDGET:
            raise SecurityError("it does not come to an end")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.charge(1)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(x) if hasattr(x, "__len__") else abs(x) for x in (left, right)]
        if operator == "**" or sizes[0] * sizes[1] > LARGEST:
            raise SecurityError(f"it computes a very large {operator}")
        return super().call_binop(context, operator, left, right)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    """The sandbox, with what Hugging Face templates expect to find."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return datetime.now().strftime(pattern)

    def charged_range(*bounds: int) -> range:
        numbers = safe_range(*bounds)
        environment.charge(len(numbers))
        return numbers

    globals_: dict[str, Any] = {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "range": charged_range,
    }
    environment.globals.update(globals_)
    return environment
