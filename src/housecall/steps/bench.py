"""bench: speed, memory, size and quality of every model of a run on this machine, and a report.

Each model runs in a process of its own, one after the other: folders through transformers, GGUF
files through the serving engine. docs/bench.md says how, and how to read what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import housecall
from housecall.artifact import MANIFEST, Artifact, create, write_json
from housecall.bench.base import Subject, Visits, Work
from housecall.bench.pictures import draw_all
from housecall.bench.prompts import Asker, majority, read_prompts
from housecall.bench.report import (
    REPORT,
    Baseline,
    Limits,
    Machine,
    Plan,
    Quality,
    Report,
)
from housecall.bench.rounds import make_visits, measure_limits, visit_all
from housecall.bench.summary import Measured, busy, comparisons, model_row, warnings
from housecall.bench.texts import write_html, write_markdown
from housecall.checks.questions import read_questions
from housecall.config import BenchConfig
from housecall.engines.tuning import find_tuning
from housecall.errors import ArtifactError
from housecall.journal import Journal
from housecall.lineage import GGUF_FILE
from housecall.machine import cpu_count, describe_machine, package_versions
from housecall.plots import require_matplotlib
from housecall.progress import bar
from housecall.settings import load_settings
from housecall.weights import Weights

_TABLES = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class Bench:
    """What is benched: models of a run (``base`` or a format), and servers beside them.

    The others are compared with ``reference``.
    """

    run: Path
    names: Sequence[str]
    servers: Sequence[Subject] = ()
    reference: str = "fp16"
    quick: bool = False


def run(bench: Bench, config: BenchConfig, out: Path, visits: Visits | None = None) -> Artifact:
    """Measure all models and write the report.

    Raises ArtifactError for a run without a gate or without variants, and MissingPackage where
    nothing can draw; a model that can't be measured is a row that says so.
    """
    require_matplotlib()  # found out before minutes of work
    gate = _gate(bench.run)
    dataset, merged = (Artifact.load(bench.run / name) for name in ("dataset", "merged"))
    subjects, errors, there = _subjects(bench)
    subjects += bench.servers
    parents = [dataset, *there]
    asker = Asker(merged.path, dataset.metrics["system_prompt"])
    here = load_settings()
    threads = here.threads or cpu_count()
    tuning = find_tuning(here.data_dir, here.threads)
    works = list(_works(config, asker, threads))
    settings = config.model_dump(mode="json")
    identity = [
        settings,
        [s.name for s in subjects],
        [p.sha256 for p in parents],
        threads,
        asdict(tuning),
    ]
    journal = Journal(out, identity)
    with create(out, "bench", config=settings, parents=parents) as draft:
        with bar("bench", 1 + len(subjects) * sum(w.pieces for w in works)) as progress:

            def tell(name: str, what: str) -> None:
                pieces = what.partition(" done before")
                progress.advance(int(pieces[0]) if pieces[1] else 1, name)

            progress.advance(0, "what this machine can do")
            limits = measure_limits(threads, journal)
            progress.advance()
            found, failed = visit_all(subjects, works, visits or make_visits(tuning), journal, tell)
        quality = _quality(gate)
        measured = [
            Measured(s, found[s.name], failed.get(s.name), quality.get(s.name)) for s in subjects
        ]
        measured += [
            Measured(Subject(name, "folder", "", None), [], error, None)
            for name, error in errors.items()
        ]
        report = _report(bench, config, works[0], measured, limits, gate, merged.path)
        write_json(draft.path / REPORT, report.model_dump(mode="json"))
        pictures = draw_all(report, draft.path)
        write_markdown(report, pictures, draft.path)
        write_html(report, pictures, draft.path)
        draft.metrics |= _metrics(report, [n for n in bench.names if n != "base"])
    journal.forget()
    return Artifact.load(out, verify=False)


def _gate(run: Path) -> Artifact:
    if not (run / "gate" / MANIFEST).is_file():
        raise ArtifactError(
            f"{run}: no gate has judged its variants: run  housecall gate {run.name}"
        )
    return Artifact.load(run / "gate", verify=False)


def _subjects(bench: Bench) -> tuple[list[Subject], dict[str, str], list[Artifact]]:
    """The models that are there, whole or not, what is wrong with others, and their artifacts."""
    subjects: list[Subject] = []
    errors: dict[str, str] = {}
    there: list[Artifact] = []
    for name in bench.names:
        folder = bench.run / "base" if name == "base" else bench.run / "variants" / name
        try:
            artifact = Artifact.read(folder)
        except ArtifactError as error:
            errors[name] = str(error)
            continue
        if name != "base":
            there.append(artifact)
        try:
            Artifact.load(folder)  # speeds beside a gate's figures are of the bytes it judged
        except ArtifactError as error:
            errors[name] = str(error)
            continue
        is_gguf = name.startswith("gguf-")
        place = folder / GGUF_FILE if is_gguf else folder
        subjects.append(Subject(name, "gguf" if is_gguf else "folder", str(place), artifact.size))
    if not there:
        raise ArtifactError(
            f"{bench.run}: has no variant to measure: run  housecall quantize {bench.run.name}"
        )
    return subjects, errors, there


def _works(config: BenchConfig, asker: Asker, threads: int) -> Iterator[Work]:
    """What each round asks; answers and questions, which do not vary, only in the first."""
    questions = (
        []
        if config.question_limit == 0
        else read_questions(config.questions, config.question_limit)
    )
    letters = asker.letters(questions)
    answers = [asker.ask(text) for text in read_prompts()[: config.answers]]
    most = max(config.batches, default=0)
    for number in range(config.repeats):
        first = number == 0
        yield Work(
            threads=threads,
            speed=asker.long_prompts(config.prompts, config.prompt_tokens, number),
            new_tokens=config.new_tokens,
            together=asker.of_one_length(
                asker.long_prompts(most, config.prompt_tokens, number + config.repeats)
            ),
            batches=list(config.batches),
            answers=answers if first else [],
            answer_tokens=config.answer_tokens,
            letters=letters if first else [],
            ends=asker.ends,
        )


def _quality(gate: Artifact) -> dict[str, Quality]:
    wanted = ("loss", "loss_interval", "accuracy", "accuracy_interval")
    return {
        entry["format"]: Quality(
            **{key: entry["figures"][key] for key in wanted}, passed=entry["passed"]
        )
        for entry in gate.metrics["variants"]
    }


def _report(
    bench: Bench,
    config: BenchConfig,
    work: Work,
    measured: Sequence[Measured],
    limits: Limits,
    gate: Artifact,
    merged: Path,
) -> Report:
    load = busy(measured)
    flops = _flops_per_token(merged)
    return Report(
        version=1,
        run=bench.run.resolve().name,
        gate=gate.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        housecall=housecall.__version__,
        plan=Plan(
            quick=bench.quick,
            rounds=config.repeats,
            prompts=config.prompts,
            prompt_tokens=[len(p.ids) for p in work.speed],
            new_tokens=config.new_tokens,
            batches=list(config.batches),
            answer_tokens=config.answer_tokens,
            prompt_flops_per_token=flops,
        ),
        machine=Machine(
            **describe_machine(), threads=work.threads, versions=package_versions(), busy=load
        ),
        limits=limits,
        warnings=list(warnings(measured, load, limits, config.repeats)),
        models=[model_row(m, work, limits, flops) for m in measured],
        comparisons=list(comparisons(measured, bench.reference)),
        baseline=_baseline(config, work),
        prompts=[p.text for p in work.answers],
    )


def _baseline(config: BenchConfig, work: Work) -> Baseline | None:
    if not work.letters:
        return None
    best = majority(work.letters)
    name = config.questions
    return Baseline(
        source=name if name.startswith("builtin:") else Path(name).name,
        letter=best.letter,
        right=best.right,
        questions=best.questions,
        accuracy=best.right / best.questions,
    )


def _flops_per_token(merged: Path) -> int:
    """Multiplications and additions of a prompt's token: two a weight of the layers' matrices.

    The head is computed once a prompt, and attention adds little to a few hundred tokens.
    """
    weights = Weights(merged)
    matrices = (weights.shape(name) for name in weights.names if name not in _TABLES)
    return 2 * sum(shape[0] * shape[1] for shape in matrices if len(shape) == 2)


def _metrics(report: Report, formats: Sequence[str]) -> Mapping[str, Any]:
    """What other steps read: the gate's order by speed, the card, ``housecall run --json``."""
    return {
        "variants": [
            {
                "format": model.name,
                "engine": model.engine,
                "tokens_per_second": model.speed.tokens_per_second.median,
                "first_token_seconds": model.speed.first_token_seconds.median,
                "peak_memory_bytes": model.peak_memory_bytes,
            }
            for model in report.models
            if model.speed and model.name in formats
        ],
        "threads": report.machine.threads,
        "warnings": report.warnings,
    }
