"""Work in a process of its own: its memory is its own, and its death is an error and no more.

Processes are forked from one that has torch and transformers loaded, where the system can fork;
so starting one costs milliseconds in place of the seconds that loading the libraries takes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, TypeVar

from housecall.bench.base import Tell
from housecall.errors import EngineError, HousecallError

_Result = TypeVar("_Result")


def run_apart(work: Callable[..., _Result], *given: Any, tell: Tell = lambda _: None) -> _Result:
    """``work(*given, tell=...)`` in a process that ends with it.

    Raises EngineError with what it raised, or with how it died.
    """
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, work, given), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind == "done":
                result: _Result = value
                return result
            if kind == "failed":
                raise EngineError(value)
            tell(value)
    except (EOFError, ConnectionResetError):
        process.join()
        raise EngineError(_death(process.exitcode)) from None
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def _context() -> SpawnContext | ForkServerContext:
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["housecall.bench.preload"])
    return context


def _child(pipe: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(("done", work(*given, tell=lambda what: pipe.send(("tell", what)))))
    except HousecallError as error:
        pipe.send(("failed", str(error)))
    except Exception as error:  # whatever a library raises is this model's row, not our end
        reason = " ".join(str(error).split()) or type(error).__name__
        pipe.send(("failed", f"{type(error).__name__}: {reason}"))


def _end_with_parent() -> None:
    """A parent that is killed can't end this process any more."""
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)


def _death(code: int | None) -> str:
    if code is not None and -code == getattr(signal, "SIGKILL", None):
        return "its process was killed, most likely for want of memory"
    return f"its process died (exit code {code})"
