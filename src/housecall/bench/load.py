"""How much of this machine other programs took while something was measured."""

from __future__ import annotations

import time

import psutil


class Watch:
    """Started before a visit, read after it."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._own = time.process_time()
        self._started = time.monotonic()

    def others(self, visited: float) -> float:
        """Share (0 to 1) of all cores that neither we nor the process ``visited`` seconds used.

        What the host of a virtual machine took from it counts too.
        """
        busy = _busy_seconds() - self._busy
        own = time.process_time() - self._own + visited
        room = (time.monotonic() - self._started) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, (busy - own) / room))


def _busy_seconds() -> float:
    """Seconds that all cores together have been at work since the machine started."""
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(times, name, 0.0) for name in names))
