"""What this machine has (cores this process may use, memory, processor), and what runs on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_VERSIONED = ("torch", "transformers", "peft", "bitsandbytes", "gguf", "libgguf", "xllamacpp")


def cpu_count() -> int:
    """Cores this process may use: its affinity, cut to the quota of its control group."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        allowed = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(allowed, int(quota))) if quota else allowed


def _cgroup_quota() -> float | None:
    """Cores granted by cgroup v2 (cpu.max) or v1 (cpu.cfs_quota_us), None without a limit."""
    root = Path("/sys/fs/cgroup")
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return float(quota) / float(period)


def process_count() -> int:
    """How many processes train together: what ``torchrun`` says, else one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Which of them this is, from 0; the first one writes files and talks to people."""
    return int(os.environ.get("RANK", "0"))


@lru_cache(maxsize=1)
def describe_machine() -> dict[str, Any]:
    """Facts about the machine that shape speed; nothing that names it or its user."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def package_versions() -> dict[str, str]:
    """Python and those of the packages that shape results which are installed."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of the checkout this code runs from, or None when it is installed."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
