"""What a bench of a real, tiny run leaves behind."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from housecall.bench.compare import as_json, compare, notes
from housecall.bench.compare import table as comparison_table
from housecall.bench.report import SCHEMA, Report, read_report, schema
from housecall.commands.benching import compare as compare_runs
from housecall.errors import ArtifactError
from housecall.pipeline import Run, is_done


@pytest.fixture(scope="module")
def report(measured: Run) -> Report:
    return read_report(measured.path / "bench")


def test_every_model_is_measured_in_every_mode(report: Report, measured: Run) -> None:
    assert [m.name for m in report.models] == ["base", *measured.recipe.quantize.formats]
    for model in report.models:
        assert model.error is None
        assert model.speed is not None
        assert model.speed.load_seconds is not None
        assert model.speed.load_seconds.count == report.plan.rounds == 2
        assert model.speed.tokens_per_second.median > 0
        assert [b.size for b in model.speed.batches] == [1, 2]
        assert model.peak_memory_bytes is not None
        assert model.bytes is not None
        assert model.peak_memory_bytes > model.bytes
        assert model.peak_gpu_bytes is not None
        assert model.letters is not None
        assert model.letters.questions == 4
        assert model.letters.interval[0] <= model.letters.accuracy <= model.letters.interval[1]
        assert model.answers is not None
        assert len(model.answers) == len(report.prompts) == 2


def test_the_engine_agrees_with_the_harness_on_time(report: Report) -> None:
    shares = [m.speed.harness_overhead for m in report.models if m.speed]
    engine = [share for share in shares if share is not None]
    assert len(engine) == 3  # GGUF files; transformers has no timing of its own


def test_the_json_keeps_its_schema(measured: Run) -> None:
    raw = json.loads((measured.path / "bench" / "report.json").read_text("utf-8"))
    shipped = json.loads((resources.files("housecall") / "data" / SCHEMA).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(shipped)
    jsonschema.validate(raw, shipped)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**raw, "models": [{}]}, shipped)


def test_the_shipped_schema_is_that_of_the_program() -> None:
    """Made anew with: python -c 'from housecall.bench.report import *; print(schema())'."""
    shipped = json.loads((resources.files("housecall") / "data" / SCHEMA).read_text("utf-8"))
    assert shipped == schema()


def test_the_page_needs_nothing_but_itself(measured: Run, report: Report) -> None:
    page = (measured.path / "bench" / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]+"', page)
    assert not re.findall(r"url\((?!#)", page)
    assert page.count("<svg") == 4
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in page
    for model in report.models:
        assert model.title in page


def test_what_a_model_says_is_text_in_the_page_and_in_markdown(report: Report) -> None:
    from housecall.bench.texts import _cell

    assert _cell("<b>a|b\nc") == "&lt;b>a\\|b c"


def test_markdown_names_pictures_that_are_there(measured: Run) -> None:
    bench = measured.path / "bench"
    text = (bench / "report.md").read_text("utf-8")
    named = re.findall(r"\]\((\S+\.png)\)", text)
    assert named == ["size-loss.png", "tokens.png", "batches.png", "memory.png"]
    assert all((bench / name).is_file() for name in named)


def test_two_rounds_are_not_compared(report: Report) -> None:
    assert {c.verdict for c in report.comparisons} == {"not enough rounds"}
    assert {c.other for c in report.comparisons} == {"fp16"}
    assert any("2 rounds: too few" in warning for warning in report.warnings)


def test_the_majority_stands_beside_the_letters(report: Report) -> None:
    baseline = report.baseline
    assert baseline is not None
    assert baseline.accuracy == baseline.right / baseline.questions == baseline.right / 4


def test_a_bench_beside_itself_has_no_difference(report: Report) -> None:
    pairs = compare(report, report)
    assert {p.model for p in pairs} == {m.name for m in report.models}
    assert all(p.ratio == 1 and not p.differs for p in pairs)
    assert all("machines" not in note for note in notes(report, report))
    json.dumps(as_json(report, report))


@pytest.mark.parametrize(
    ("other", "titles"),
    [("runs/copy", ("run", "copy")), ("laptop/run", ("runs/run", "laptop/run"))],
)
def test_the_two_that_are_compared_are_told_apart(
    measured: Run,
    other: str,
    titles: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A copy's report says the name of the run that was measured."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/run", other):
        Path(folder, "bench").mkdir(parents=True)
        for file in ("recipe.yaml", "bench/manifest.json", "bench/report.json"):
            shutil.copy(measured.path / file, Path(folder, file))
    compare_runs("run", other, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["other"]) == titles
    compare_runs("run", other, as_json=False)
    assert f"{titles[0]} beside {titles[1]}" in capsys.readouterr().out


def test_large_figures_are_written_out(report: Report) -> None:
    """Not as 1.63e+04."""
    cells = [cell for row in comparison_table(report, report).rows for cell in row]
    assert not [cell for cell in cells if "e+" in cell]


def test_other_bytes_of_the_same_size_are_not_what_was_measured(
    measured: Run, tmp_path: Path
) -> None:
    shutil.copytree(measured.path, tmp_path / "run")
    copy = Run(tmp_path / "run", measured.recipe)
    assert is_done(copy, "bench")
    file = copy.path / "variants" / "gguf-q8_0" / "model.gguf"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert is_done(copy, "bench", verify=False)
    assert not is_done(copy, "bench")


def test_the_step_is_done_and_its_speeds_are_read(measured: Run) -> None:
    assert is_done(measured, "bench")
    found = measured.artifact("bench").metrics["variants"]
    assert [v["format"] for v in found] == list(measured.recipe.quantize.formats)


def test_a_report_that_is_not_there_or_not_whole_is_one_line(copy: Run) -> None:
    with pytest.raises(
        ArtifactError, match=r"nothing was measured there: run  housecall bench run"
    ):
        read_report(copy.path / "bench")
    (copy.path / "bench").mkdir()
    (copy.path / "bench" / "manifest.json").write_text("{}")
    (copy.path / "bench" / "report.json").write_text('{"version": 1}')
    with pytest.raises(ArtifactError, match=r"not a report of this version \(12 fields\)"):
        read_report(copy.path / "bench")
