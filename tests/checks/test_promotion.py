"""Rules, the order among those that pass, and what is refused afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from housecall.artifact import create, write_json
from housecall.errors import ArtifactError, GateRefused
from housecall.lineage import GGUF_FILE, find_run, served_model
from housecall.model_card import write_card
from housecall.pipeline import Run, change_run, execute, is_done
from housecall.promotion import promote
from housecall.steps import gate
from housecall.steps.base import read_json


@pytest.fixture
def copy(whole_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(whole_run.path, tmp_path / "copy")
    return Run(tmp_path / "copy", whole_run.recipe)


def bench(run: Run, rates: dict[str, float]) -> None:
    """A bench of these variants that says so."""
    parents = [run.artifact("dataset"), *run.variants()]
    with create(run.path / "bench", "bench", config={}, parents=parents) as draft:
        draft.metrics["variants"] = [
            {"format": name, "tokens_per_second": rate} for name, rate in rates.items()
        ]


def test_each_figure_has_its_interval_and_the_engine_was_asked(whole_run: Run) -> None:
    entries = {v["format"]: v["figures"] for v in whole_run.artifact("gate").metrics["variants"]}
    for figures in entries.values():
        low, high = figures["loss_interval"]
        assert low < figures["loss"] < high
        assert figures["perplexity_interval"][0] < figures["perplexity"]
        assert figures["kl_mean"] <= figures["kl_p99"] <= figures["kl_max"]
        assert figures["accuracy_interval"][0] <= figures["accuracy"]
        assert figures["questions"] == 4
    assert entries["fp16"]["engine"] is None
    engine = entries["gguf-f16"]["engine"]
    assert engine["tokens"] >= 8
    assert engine["kl_from_weights"] < 1e-3
    assert engine["agreement"] == 1


def test_other_rules_judge_the_same_figures_again_without_measuring(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copy.artifact("gate").metrics["variants"]
    monkeypatch.setattr(gate, "_measure", lambda *_: pytest.fail("measured again"))
    size = next(v["bytes"] for v in before if v["format"] == "gguf-q8_0")
    changed = change_run(copy.path, (f"gate.max_bytes={size - 1}",))
    assert not is_done(changed, "gate")
    with pytest.raises(GateRefused) as caught:
        execute(changed, start="gate", stop="gate")
    for name in ("gguf-f16", "gguf-q8_0"):
        assert re.search(rf"{name}: size [\d.]+ MB > [\d.]+ MB", str(caught.value))
    assert not (copy.path / "promoted.json").exists()
    assert "Nothing: no variant has passed" in (copy.path / "MODEL_CARD.md").read_text()
    after = changed.artifact("gate").metrics["variants"]
    assert [v["figures"] for v in after] == [v["figures"] for v in before]
    with pytest.raises(GateRefused):  # asked once more, it says the same at once
        execute(changed, start="gate", stop="gate")


def test_the_fastest_is_taken_only_when_asked_and_timed(copy: Run) -> None:
    assert promote(copy.path, "speed")["format"] == "gguf-q8_0"  # not timed: the smallest
    bench(copy, {"gguf-f16": 20.0, "gguf-q8_0": 10.0})
    assert promote(copy.path, "size")["format"] == "gguf-q8_0"
    fastest = promote(copy.path, "speed")
    assert (fastest["format"], fastest["order"]) == ("gguf-f16", "speed")
    assert served_model(str(copy.path)).format == "gguf-f16"
    write_card(copy.path)
    assert "`gguf-f16`, the fastest GGUF" in (copy.path / "MODEL_CARD.md").read_text()


def test_the_newest_run_is_the_newest_that_can_be_served(
    copy: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy.path.parent)
    Path("runs").mkdir()
    copy.path.rename("runs/whole")
    recipe = Path("runs/whole/recipe.yaml")
    os.utime(recipe, (1, 1))
    for number, name in enumerate(("failed", "refused"), start=2):
        Path("runs", name).mkdir()
        shutil.copy(recipe, f"runs/{name}")
        os.utime(f"runs/{name}/recipe.yaml", (number, number))
    shutil.copytree("runs/whole/variants", "runs/refused/variants")
    assert served_model(None).run == "whole"
    line = "runs/refused is newer but did not get so far: taking runs/whole"
    assert line in " ".join(capfd.readouterr().err.split())
    assert find_run(None, needs=("variants/*/manifest.json",)).name == "refused"
    assert find_run(None).name == "refused"
    (Path("runs/whole") / "promoted.json").unlink()
    with pytest.raises(ArtifactError, match=r"^runs/refused: nothing has passed the gate"):
        served_model(None)


def test_a_gate_that_was_edited_promotes_nothing(copy: Run) -> None:
    file = copy.path / "gate" / "manifest.json"
    manifest = read_json(file)
    for verdict in manifest["metrics"]["variants"]:
        verdict["passed"] = True
    write_json(file, {**manifest, "seed": 1})
    with pytest.raises(ArtifactError, match=r"not the gate that promoted .*expected sha256"):
        served_model(str(copy.path))


def test_a_variant_made_anew_after_the_gate_is_named_with_both_hashes(copy: Run) -> None:
    promoted = read_json(copy.path / "promoted.json")
    variant = copy.artifact(f"variants/{promoted['format']}")
    parents = variant.parents()
    with create(variant.path, "variant", config={}, parents=parents) as draft:
        raw = bytearray((variant.path / GGUF_FILE).read_bytes())
        raw[-1] ^= 1
        (draft.path / GGUF_FILE).write_bytes(raw)
    with pytest.raises(ArtifactError) as caught:
        served_model(str(copy.path))
    assert f"variants/{promoted['format']}/model.gguf: not the bytes that passed" in str(
        caught.value
    )
    assert promoted["sha256"] in str(caught.value)
    with pytest.raises(ArtifactError, match=r"has not passed the gate \(no gate has judged sha256"):
        served_model(str(variant.path / GGUF_FILE))
    assert served_model(str(variant.path / GGUF_FILE), ungated=True).gated is False


def test_bytes_that_were_changed_are_found_by_the_next_gate_too(copy: Run) -> None:
    promoted = read_json(copy.path / "promoted.json")["format"]
    file = copy.path / "variants" / promoted / GGUF_FILE
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    assert not is_done(copy, "gate")
    with pytest.raises(
        ArtifactError, match=rf"{promoted}/model.gguf: damaged or changed.* remove "
    ):
        execute(copy, start="gate", stop="gate")


def test_a_broken_promoted_json_is_one_line(copy: Run) -> None:
    (copy.path / "promoted.json").write_text(json.dumps({"format": "gguf-q8_0"}))
    with pytest.raises(ArtifactError, match=r"promoted\.json: can't be read .*housecall gate"):
        served_model(str(copy.path))
