"""The original report's table on a random model of TinyLlama's shape: theirs beside ours.

Speed and size don't depend on the values of weights. Base and fine-tuned model have one shape, so
they are the same files here, visited as two: whatever the report says of them is noise, and the
bench must say so. GGUF files are measured with the engine's defaults and with the settings that
``doctor --tune`` finds on the Q4_K_M one.

    python benchmarks/tinyllama_speed.py --work FOLDER [--rounds 5] [--no-tune]

Needs the extras train and dev, 5 GB of disk and 4 GB of memory. Can be interrupted: the same
command goes on. Prints Markdown, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from tinyllama_shape import make_model

from housecall.bench.base import Subject, Work
from housecall.bench.prompts import Asker
from housecall.bench.report import Limits
from housecall.bench.rounds import make_visits, measure_limits, visit_all
from housecall.bench.summary import Measured, busy, comparisons, model_row
from housecall.bench.tables import verdict
from housecall.bench.tuning import tries, tune
from housecall.engines.tuning import Tuned, Tuning
from housecall.journal import Journal
from housecall.machine import cpu_count
from housecall.progress import bar

NEW_TOKENS = 100  # the report's: 12.33 s at 8.1 tokens/s
REPORTED = {"base": (12.33, 8.1), "fine-tuned": (11.82, 8.5), "gguf-q8_0": (4.0, 25.0)}
FORMATS = ("gguf-q8_0", "gguf-q4_k_m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-tune", action="store_true", help="only the engine's defaults")
    arguments = parser.parse_args()
    folder: Path = arguments.work
    model = prepare(folder)
    journal = Journal(folder / "speed", [NEW_TOKENS, cpu_count()])
    limits = measure_limits(cpu_count(), journal)
    tuned = None if arguments.no_tune else find_settings(folder, limits, journal)
    measured = measure(folder, model, arguments.rounds, journal, tuned)
    report(measured, limits, tuned, arguments.rounds)


def prepare(folder: Path) -> Path:
    """The random model and its GGUF files, once."""
    from housecall.gguf.convert import convert, plan
    from housecall.gguf.llama import hyperparameters
    from housecall.gguf.mixture import file_type
    from housecall.gguf.vocabulary import gguf_vocabulary
    from housecall.steps.base import read_json
    from housecall.weights import Weights

    model = folder / "tinyllama-shape"
    if not (model / "model.safetensors").exists():
        make_model(model)
    config = read_json(model / "config.json")
    for fmt in FORMATS:
        file = folder / f"{fmt}.gguf"
        if file.exists():
            continue
        weights = Weights(model, "np")
        partial = file.with_suffix(".partial")
        fields = {
            "general.type": "model",
            **hyperparameters(config),
            "general.file_type": int(file_type(fmt)),
            **gguf_vocabulary(model, int(config["vocab_size"])),
            "general.quantization_version": 2,
        }
        convert(weights, config, plan(weights, config, fmt), fields, partial)
        partial.replace(file)
    return model


def find_settings(folder: Path, limits: Limits, journal: Journal) -> Tuned:
    """The engine's best settings here, found once."""
    kept = journal.get("tuned")
    if kept is None:
        with bar("tune", tries(cpu_count())) as progress:
            found = tune(folder / "gguf-q4_k_m.gguf", limits, progress.advance)
        kept = {"settings": asdict(found.tuning), "report": dict(found.report)}
        journal.put("tuned", kept)
    return Tuned(Tuning(**kept["settings"]), kept["report"])


def measure(
    folder: Path, model: Path, rounds: int, journal: Journal, tuned: Tuned | None
) -> list[Measured]:
    """Every model once in each round."""
    size = (model / "model.safetensors").stat().st_size
    subjects = [Subject(name, "folder", str(model), size) for name in ("base", "fine-tuned")]
    settings = {"": Tuning()}
    if tuned and tuned.tuning != Tuning():
        settings[" tuned"] = tuned.tuning
    for fmt in FORMATS:
        file = folder / f"{fmt}.gguf"
        for suffix in settings:
            subjects.append(Subject(fmt + suffix, "gguf", str(file), file.stat().st_size))
    asker = Asker(model, None)
    works = [timed(asker.long_prompts(1, 64, number), asker.ends) for number in range(rounds)]

    def visit(subject: Subject, work: Work, tell: Any) -> Any:
        tuning = settings[" tuned" if subject.name.endswith(" tuned") else ""]
        return make_visits(tuning)(subject, work, tell)

    with bar("measure", len(subjects) * sum(w.pieces for w in works)) as progress:
        found, errors = visit_all(
            subjects, works, visit, journal, lambda name, _: progress.advance(1, name)
        )
    return [Measured(s, found[s.name], errors.get(s.name), None) for s in subjects]


def timed(speed: list[Any], ends: Any) -> Work:
    """Single answers to some prompts, and nothing else."""
    return Work(
        threads=cpu_count(),
        speed=speed,
        new_tokens=NEW_TOKENS,
        together=[],
        batches=[],
        answers=[],
        answer_tokens=1,
        letters=[],
        ends=ends,
    )


def report(measured: list[Measured], limits: Limits, tuned: Tuned | None, rounds: int) -> None:
    work = timed([], [])
    compared = {c.model: c for c in comparisons(measured, "base") if c.figure == "latency_seconds"}
    print("| model | report: s, tokens/s | here: s (p50) | tokens/s | of bandwidth | memory GB |")
    print("|---|---|---|---|---|---|")
    rows = []
    for entry in measured:
        row = model_row(entry, work, limits, None)
        if row.speed is None:
            print(f"| {row.name} | - | {row.error} | | | |")
            continue
        theirs = REPORTED.get(row.name)
        rate = row.speed.tokens_per_second
        print(
            f"| {row.name} | {f'{theirs[0]}, {theirs[1]}' if theirs else '-'} "
            f"| {row.speed.latency_seconds.p50:.2f} "
            f"| {rate.median:.1f} ({rate.low:.1f} to {rate.high:.1f}) "
            f"| {row.speed.bandwidth_share or 0:.0%} | {(row.peak_memory_bytes or 0) / 1e9:.2f} |"
        )
        rows.append(row.model_dump(mode="json", exclude={"answers", "letters", "quality"}))
    for name, found in compared.items():
        print(f"\nlatency of {name} by base: {verdict(found)}")
    load = busy(measured)
    if load:
        print(f"\n{rounds} rounds; other programs took {load.median:.0%} of the cores", end="")
        print(f" in the median, {load.high:.0%} at worst. Limits: {limits}")
    found_settings = {"tuned": dict(tuned.report), **asdict(tuned.tuning)} if tuned else None
    print(json.dumps({"models": rows, "limits": limits.model_dump(), "tuning": found_settings}))


if __name__ == "__main__":
    main()
