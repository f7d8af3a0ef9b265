"""Models that can't be loaded, runs that lack something, a bench that is interrupted."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from housecall.artifact import MANIFEST, Artifact, create
from housecall.bench.base import Streamed, Subject, Tell, Visit, Whole, Work
from housecall.bench.processes import run_apart
from housecall.bench.report import read_report
from housecall.config import BenchConfig
from housecall.errors import ArtifactError, EngineError, MissingPackage
from housecall.pipeline import Run
from housecall.steps.bench import Bench, run

pytestmark = pytest.mark.slow
SMALL = BenchConfig(prompts=1, repeats=1, prompt_tokens=16, new_tokens=2, batches=(), answers=0)


def made_anew_with_zeros(variant: Path, name: str) -> None:
    """A variant whose manifest is right about a file that nothing can load."""
    kept = {file.name: file.read_bytes() for file in variant.iterdir() if file.name != MANIFEST}
    made = Artifact.load(variant)
    with create(variant, "variant", config={}, parents=made.parents()) as draft:
        for file, raw in kept.items():
            (draft.path / file).write_bytes(bytes(len(raw)) if file == name else raw)


def test_a_model_that_does_not_load_is_a_row_and_the_rest_goes_on(copy: Run) -> None:
    variants = copy.path / "variants"
    made_anew_with_zeros(variants / "int8", "model.safetensors")
    made_anew_with_zeros(variants / "gguf-q8_0", "model.gguf")
    changed = variants / "gguf-q4_k_m" / "model.gguf"
    raw = bytearray(changed.read_bytes())
    raw[-1] ^= 1
    changed.write_bytes(raw)
    cut = variants / "gguf-f16" / "model.gguf"
    cut.write_bytes(cut.read_bytes()[:1000])
    (variants / "int4" / "config.json").unlink()
    names = ("fp16", "int8", "int4", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-q6_k")
    run(Bench(copy.path, names), SMALL, copy.path / "bench")
    report = read_report(copy.path / "bench")
    errors = {m.name: m.error for m in report.models}
    assert errors.keys() == set(names)
    assert errors["fp16"] is None
    assert "transformers can't load it" in str(errors["int8"])
    assert "model.gguf: damaged or changed" in str(errors["gguf-q4_k_m"])
    assert "config.json: missing" in str(errors["int4"])
    assert "model.gguf: damaged or changed" in str(errors["gguf-f16"])
    assert "not a readable GGUF file" in str(errors["gguf-q8_0"])
    assert "not an artifact" in str(errors["gguf-q6_k"])
    page = (copy.path / "bench" / "report.html").read_text("utf-8")
    assert page.count('class="error"') == 6


def test_a_run_without_a_gate_is_one_line(copy: Run) -> None:
    shutil.rmtree(copy.path / "gate")
    with pytest.raises(ArtifactError, match=r"no gate has judged .* housecall gate run$"):
        run(Bench(copy.path, ("fp16",)), SMALL, copy.path / "bench")


def test_a_run_without_variants_is_one_line(copy: Run) -> None:
    shutil.rmtree(copy.path / "variants")
    with pytest.raises(ArtifactError, match=r"no variant to measure: run  housecall quantize run$"):
        run(Bench(copy.path, ("base", "fp16")), SMALL, copy.path / "bench")


def test_without_a_plot_library_nothing_is_begun(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else real(n, *a)
    )
    with pytest.raises(MissingPackage, match=r"matplotlib: run  pip install 'housecall\[train\]'"):
        run(Bench(copy.path, ("fp16",)), SMALL, copy.path / "bench", Scripted())


class Scripted:
    """Visits that take no time, note where they were, and may be interrupted."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.went: list[str] = []
        self._stop_after = stop_after

    def __call__(self, subject: Subject, work: Work, tell: Tell) -> Visit:
        if len(self.went) == self._stop_after:
            raise KeyboardInterrupt
        self.went.append(subject.name)
        answers = [Streamed(len(p.ids), 2, [0.5, 1.0], 0.5) for p in work.speed]
        return Visit(
            engine="scripted",
            settings={},
            computes_in="nothing",
            load_seconds=0.1,
            whole=[Whole(2, 1.0, 1.0) for _ in answers],
            streamed=answers,
            together=[],
            token_bytes=1000,
            peak_memory_bytes=10**9,
            peak_gpu_bytes=0,
            cpu_seconds=0.0,
            letters=[0 for _ in work.letters] or None,
        )


def test_rounds_go_forth_and_back_and_an_interrupted_bench_goes_on(copy: Run) -> None:
    names = ("fp16", "int8", "gguf-f16")
    config = SMALL.model_copy(update={"repeats": 3})
    broken = Scripted(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        run(Bench(copy.path, names), config, copy.path / "bench", broken)
    assert not (copy.path / "bench").exists()
    rest = Scripted()
    run(Bench(copy.path, names), config, copy.path / "bench", rest)
    there_and_back = [*names, *reversed(names), *names]
    assert broken.went + rest.went == there_and_back
    report = read_report(copy.path / "bench")
    assert {c.verdict for c in report.comparisons} == {"no difference"}
    model = report.models[0]
    assert model.speed is not None
    assert model.speed.tokens_per_second.median == 2
    assert model.speed.harness_overhead == 0
    assert not list(copy.path.glob(".bench*"))


def test_other_settings_begin_anew(copy: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Bench(copy.path, ("fp16",)), SMALL, copy.path / "bench", Scripted(stop_after=0))
    other = SMALL.model_copy(update={"new_tokens": 3})
    visits = Scripted()
    run(Bench(copy.path, ("fp16",)), other, copy.path / "bench", visits)
    assert visits.went == ["fp16"]


def _raise(what: str, tell: Tell) -> None:
    tell("begun")
    raise ValueError(f"about {what}\nand more")


def _die(code: int, tell: Tell) -> None:
    os._exit(code)


def test_what_goes_wrong_in_another_process_is_one_line_here(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(EngineError, match=r"^ValueError: about a model and more$"):
        run_apart(_raise, "a model", tell=told.append)
    assert told == ["begun"]
    with pytest.raises(EngineError, match=r"^its process died \(exit code 7\)$"):
        run_apart(_die, 7)
