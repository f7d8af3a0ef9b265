"""Multiple choice by the letter's likelihood on public question sets, for models of a run.

Questions are those of MIRAGE's sets, one JSON object a line with ``dataset``, ``question``,
``options`` and ``answer``; the first COUNT of each set are asked. Every model runs as in ``bench``
Prints a Markdown table; what was asked is kept in OUT, so that the command can be given again.

    python benchmarks/mcq_letters.py RUN --questions mcq.jsonl [--count 300] [--models base,fp16]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from housecall.artifact import Artifact, write_json
from housecall.bench.base import LetterQuestion, Subject, Work
from housecall.bench.prompts import Asker, majority
from housecall.bench.rounds import make_visits
from housecall.checks.questions import read_questions
from housecall.checks.statistics import wilson
from housecall.lineage import GGUF_FILE
from housecall.machine import cpu_count
from housecall.settings import load_settings

MODELS = "base,fp16,gguf-q8_0,gguf-q5_k_m,gguf-q4_k_m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="of each set")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--out", type=Path, help="where choices are kept (default: RUN/mcq.json)")
    arguments = parser.parse_args()
    out = arguments.out or arguments.run / "mcq.json"
    dataset = Artifact.read(arguments.run / "dataset")
    asker = Asker(arguments.run / "merged", dataset.metrics["system_prompt"])
    sets = dict(read_sets(arguments.questions, arguments.count, asker))
    chosen: dict[str, list[int]] = json.loads(out.read_text()) if out.exists() else {}
    for name in arguments.models.split(","):
        for dataset_name, questions in sets.items():
            key = f"{name} {dataset_name} {len(questions)}"
            if key not in chosen:
                chosen[key] = ask(arguments.run, name, questions, asker.ends)
                write_json(out, chosen)
    report(arguments.models.split(","), sets, chosen)


def read_sets(file: Path, count: int, asker: Asker) -> Iterator[tuple[str, list[LetterQuestion]]]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = dict.fromkeys(json.loads(line)["dataset"] for line in lines)
    for name in names:
        own = [line for line in lines if json.loads(line)["dataset"] == name][:count]
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "questions.jsonl"
            part.write_text("\n".join(own), encoding="utf-8")
            yield name, asker.letters(read_questions(str(part), None))


def ask(run: Path, name: str, questions: list[LetterQuestion], ends: list[int]) -> list[int]:
    """One life of a model's process with nothing but questions."""
    if name.startswith("gguf-"):
        subject = Subject(name, "gguf", str(run / "variants" / name / GGUF_FILE), None)
    else:
        folder = run / "base" if name == "base" else run / "variants" / name
        subject = Subject(name, "folder", str(folder), None)
    work = Work(
        threads=load_settings().threads or cpu_count(),
        speed=[],
        new_tokens=0,
        together=[],
        batches=[],
        answers=[],
        answer_tokens=0,
        letters=questions,
        ends=ends,
    )
    letters = make_visits()(subject, work, lambda _: None).letters
    assert letters is not None
    return letters


def report(
    models: list[str], sets: dict[str, list[LetterQuestion]], chosen: dict[str, list[int]]
) -> None:
    print("| model | " + " | ".join(f"{n} ({len(q)})" for n, q in sets.items()) + " |")
    print("|---|" + "---|" * len(sets))
    for name in models:
        cells = []
        for dataset_name, questions in sets.items():
            letters = chosen[f"{name} {dataset_name} {len(questions)}"]
            right = sum(c == q.answer for c, q in zip(letters, questions, strict=True))
            low, high = wilson(right, len(questions))
            cells.append(f"{right / len(questions):.1%} ({low:.1%} to {high:.1%})")
        print(f"| `{name}` | " + " | ".join(cells) + " |")
    cells = []
    for questions in sets.values():
        best = majority(questions)
        cells.append(f"{best.right / best.questions:.1%} (always {best.letter})")
    print("| commonest letter | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
