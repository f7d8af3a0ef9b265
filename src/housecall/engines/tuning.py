"""Settings of the engine that change its speed, and its answers only by rounding, of this machine.

``housecall doctor --tune`` finds them by measuring; ``serve``, ``generate``, ``chat`` and ``bench``
use them. Found on another processor, for other cores or another build of the engine, they are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from housecall.artifact import write_json
from housecall.machine import describe_machine

FILE = "engine-settings.json"


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the engine holds and multiplies weights. The defaults are llama.cpp's own.

    ``threads`` None is one for each core. ``repack`` lays weights out anew for this processor's
    instructions where the engine can. ``map_file`` reads weights from the mapped file in place of a
    copy in memory. ``flash_attention`` computes attention block by block.
    """

    threads: int | None = None
    repack: bool = True
    map_file: bool = True
    flash_attention: bool = True


@dataclass(frozen=True, slots=True)
class Tuned:
    """Settings that were found here, and what was measured to find them."""

    tuning: Tuning
    report: Mapping[str, Any]


def read_tuned(folder: Path) -> Tuned | None:
    """What was found on this very machine with this build, or None."""
    try:
        saved = json.loads((folder.expanduser() / FILE).read_text(encoding="utf-8"))
        names = {field.name for field in fields(Tuning)}
        if saved["machine"] != _machine() or saved["settings"].keys() != names:
            return None
        return Tuned(Tuning(**saved["settings"]), saved["report"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a file that can't be read is no settings: the defaults work


def find_tuning(folder: Path, threads: int | None) -> Tuning:
    """The settings to run with: those found here, else the defaults; ``threads`` given wins."""
    tuned = read_tuned(folder)
    tuning = tuned.tuning if tuned else Tuning()
    return replace(tuning, threads=threads or tuning.threads)


def write_tuned(folder: Path, tuned: Tuned) -> Path:
    """Keep them for this machine; the file they are in."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "machine": _machine(),
        "settings": asdict(tuned.tuning),
        "report": dict(tuned.report),
    }
    write_json(folder / FILE, value)
    return folder / FILE


def _machine() -> dict[str, Any]:
    """What the best settings depend on."""
    found = describe_machine()
    return {
        "processor": found["processor"],
        "cores": found["cores"],
        "engine": metadata.version("xllamacpp"),
    }
