"""Visits in rounds: in each round every model once, so that a slow minute of the machine hits all.

Every second round goes backwards, so that no model always runs on a machine that has just worked.
What was measured is kept at once: an interrupted bench goes on behind the last visit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pydantic import TypeAdapter

from housecall.bench.base import Subject, Tell, Visit, Visits, Work, plain
from housecall.bench.gguf import visit_gguf
from housecall.bench.load import Watch
from housecall.bench.processes import run_apart
from housecall.bench.report import Limits
from housecall.bench.server import visit_server
from housecall.engines.tuning import Tuning
from housecall.errors import HousecallError
from housecall.journal import Journal

_VISIT: TypeAdapter[Visit] = TypeAdapter(Visit)


def make_visits(tuning: Tuning | None = None, *, key: str = "", model: str = "") -> Visits:
    """The visits of all kinds of subjects.

    The engine runs with ``tuning``, as it serves; ``key`` and ``model`` are for servers.
    """

    def visit(subject: Subject, work: Work, tell: Tell) -> Visit:
        if subject.kind == "gguf":
            return visit_gguf(subject.path, work, tell, tuning or Tuning())
        if subject.kind == "server":
            return visit_server(subject.place, work, tell, key=key, model=model)
        return run_apart(_visit_folder, subject.place, work, tell=tell)

    return visit


def visit_all(
    subjects: Sequence[Subject],
    rounds: Sequence[Work],
    visits: Visits,
    journal: Journal,
    tell: Callable[[str, str], None],
) -> tuple[dict[str, list[Visit]], dict[str, str]]:
    """Visits of every model, by round, and the errors of those that could not be measured.

    ``tell`` is told a model's name and what was done of it. A model that fails is not visited
    again; the others go on.
    """
    found: dict[str, list[Visit]] = {s.name: [] for s in subjects}
    errors: dict[str, str] = {}
    for number, work in enumerate(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            name, key = subject.name, f"{number} {subject.name}"
            if name in errors:
                continue
            kept = journal.get(key)
            if kept is not None:
                found[name].append(_VISIT.validate_python(kept))
                tell(name, f"{work.pieces} done before")
                continue
            try:
                visit = _watched(subject, work, visits, partial(tell, name))
            except HousecallError as error:
                errors[name] = str(error)
                continue
            journal.put(key, plain(visit))
            found[name].append(visit)
    return {n: [] if n in errors else v for n, v in found.items()}, errors


def measure_limits(threads: int, journal: Journal) -> Limits:
    """The machine's limits, the best of this sitting and those before an interruption."""
    now = limits_now(threads)
    kept: Mapping[str, float] = journal.get("limits") or {}
    best = {key: max(value, kept.get(key, 0.0)) for key, value in now.model_dump().items()}
    journal.put("limits", best)
    return Limits(**best)


def limits_now(threads: int) -> Limits:
    """The machine's limits, measured in a process of its own."""
    return run_apart(_measure_roofline, threads)


# These two run in the other process, which has torch loaded; here it would take seconds.
def _visit_folder(place: str, work: Work, tell: Tell) -> Visit:
    from housecall.bench.folder import visit_folder

    return visit_folder(place, work, tell)


def _measure_roofline(threads: int, tell: Tell) -> Limits:
    from housecall.bench.roofline import measure_roofline

    return measure_roofline(threads, tell)


def _watched(subject: Subject, work: Work, visits: Visits, tell: Tell) -> Visit:
    watch = Watch()
    visit = visits(subject, work, tell)
    if visit.cpu_seconds is None:  # a server's own work can't be told from that of others
        return visit
    return replace(visit, busy=watch.others(visit.cpu_seconds))
