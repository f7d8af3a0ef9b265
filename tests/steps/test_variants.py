"""quantize, gate and promotion on a tiny run; damage and movement of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from housecall.artifact import Artifact
from housecall.errors import ArtifactError, ConfigError, GateRefused
from housecall.lineage import chain, served_model
from housecall.pipeline import STEPS, Run, change_run, execute, is_done, open_run
from housecall.promotion import promote
from housecall.steps import gate
from tiny_runs import tiny_recipe, write_rows


@pytest.fixture
def copy(tiny_run: Run, tmp_path: Path) -> Run:
    """The run moved to another place, free to be broken."""
    shutil.copytree(tiny_run.path, tmp_path / "moved")
    return Run(tmp_path / "moved", tiny_run.recipe)


def test_half_precision_variants_lose_nothing_and_smaller_ones_are_smaller(tiny_run: Run) -> None:
    judged = {v["format"]: v for v in tiny_run.artifact("gate").metrics["variants"]}
    assert judged["fp16"]["kl_mean"] == judged["gguf-f16"]["kl_mean"] == 0
    assert 0 < judged["gguf-q8_0"]["kl_mean"] < judged["gguf-q4_k_m"]["kl_mean"]
    sizes = {v.path.name: v.size for v in tiny_run.variants()}
    assert sizes["gguf-q4_k_m"] < sizes["gguf-q8_0"] < sizes["gguf-f16"]
    assert sizes["int4"] < sizes["int8"] < sizes["fp16"]


def test_the_smallest_gguf_that_passed_is_promoted(tiny_run: Run) -> None:
    judged = [v for v in tiny_run.artifact("gate").metrics["variants"] if v["passed"]]
    ranked = sorted((v["bytes"], v["format"]) for v in judged if v["format"].startswith("gguf"))
    promoted = json.loads((tiny_run.path / "promoted.json").read_text())
    assert promoted["format"] == ranked[0][1]
    model = served_model(str(tiny_run.path))
    assert model.gated
    assert model.sha256 == promoted["sha256"]


def test_when_none_passes_nothing_is_promoted(copy: Run) -> None:
    rules = {"max_kl": 1e-12, "min_agreement": 1.0, "max_loss_increase": 1e-12}
    strict = copy.recipe.gate.model_copy(update=rules)
    variants = [v for v in copy.variants() if v.path.name != "gguf-f16"]
    judged = gate.run(strict, variants, copy.artifact("dataset"), copy.path / "gate")
    with pytest.raises(GateRefused, match=r"refused every variant: gguf-q8_0: KL") as caught:
        promote(copy.path, "size")
    assert judged.metrics["variants"]
    assert caught.value.exit_code == 3
    assert not (copy.path / "promoted.json").exists()
    with pytest.raises(ArtifactError, match="nothing has passed the gate"):
        served_model(str(copy.path))


def test_a_variant_that_has_not_passed_is_served_only_when_asked(copy: Run) -> None:
    report = copy.artifact("gate").metrics["variants"]
    refused = [v for v in report if v["format"].startswith("gguf") and not v["passed"]]
    strict = copy.recipe.gate.model_copy(update={"max_kl": 1e-9})
    if not refused:
        gate.run(strict, copy.variants(), copy.artifact("dataset"), copy.path / "gate")
        with pytest.raises(GateRefused):
            promote(copy.path, "size")
    file = str(copy.path / "variants" / "gguf-q4_k_m" / "model.gguf")
    with pytest.raises(ArtifactError, match=r"has not passed the gate \(.* < .*--ungated"):
        served_model(file)
    assert served_model(file, ungated=True).gated is False


def test_one_changed_byte_is_named_with_both_hashes(copy: Run) -> None:
    promoted = json.loads((copy.path / "promoted.json").read_text())["format"]
    file = copy.path / "variants" / promoted / "model.gguf"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"model.gguf: damaged .*expected sha256 .*found"):
        served_model(str(copy.path))


def test_changed_bytes_of_any_variant_are_not_done_before(copy: Run) -> None:
    file = copy.path / "variants" / "gguf-q8_0" / "model.gguf"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    for step in ("quantize", "gate"):
        assert not is_done(copy, step)
        with pytest.raises(ArtifactError, match=r"gguf-q8_0/model.gguf: damaged or changed"):
            execute(copy, start=step, stop=step)


def test_a_moved_run_is_whole_and_names_its_chain(copy: Run, tiny_run: Run) -> None:
    assert all(is_done(copy, step) for step in STEPS[:-1])
    moved = chain(copy.artifact("variants/gguf-q4_k_m"))
    assert moved == chain(tiny_run.artifact("variants/gguf-q4_k_m"))
    kinds = [entry["kind"] for entry in moved]
    assert kinds[0] == "variant"
    assert kinds[-1] == "base"
    assert kinds.index("merged") < kinds.index("adapter") < kinds.index("dataset")
    assert not any(str(tiny_run.path) in json.dumps(entry) for entry in moved[:-1])


def test_a_run_of_another_recipe_is_refused_and_untouched(copy: Run) -> None:
    before = (copy.path / "recipe.yaml").read_bytes()
    other = copy.recipe.model_copy(update={"question": "Another?"})
    with pytest.raises(ConfigError, match=r"run of another recipe \(question: .*--out"):
        open_run(copy.path, other)
    assert (copy.path / "recipe.yaml").read_bytes() == before


def test_a_changed_key_makes_anew_only_what_depends_on_it(copy: Run) -> None:
    changed = change_run(copy.path, ("gate.tokens=200",))
    assert is_done(changed, "quantize")
    assert not is_done(changed, "gate")
    execute(changed, stop="gate")
    assert is_done(changed, "gate")
    assert Artifact.load(changed.path / "gate").manifest["config"]["tokens"] == 200


def test_an_edited_data_file_is_prepared_anew(tiny_llama: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl")
    run = open_run(tmp_path / "run", tiny_recipe(tiny_llama, file))
    execute(run, stop="prepare")
    assert is_done(run, "prepare")
    write_rows(file, 40)
    assert not is_done(run, "prepare")
    file.unlink()
    assert is_done(run, "prepare")


def test_a_folder_with_other_things_in_it_is_not_taken(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not empty and not a run"):
        open_run(tmp_path, tiny_recipe(tiny_llama, tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_bitsandbytes_folders_load_in_plain_transformers(tiny_run: Run, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_run.artifact(f"variants/{name}").path
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    logits = model(torch.tensor([[5, 6, 7]])).logits
    assert torch.isfinite(logits).all()
    linear = model.model.layers[0].mlp.up_proj
    assert type(linear).__name__ == {"int8": "Linear8bitLt", "int4": "Linear4bit"}[name]


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_bitsandbytes_folders_are_those_of_save_pretrained(
    tiny_run: Run, tmp_path: Path, name: str
) -> None:
    """The same tensors and config.json; of JSON in a tensor the same values."""
    import torch

    from housecall.causal_lm import load_config, load_model
    from housecall.weights import Weights

    folder = tiny_run.artifact(f"variants/{name}").path
    quantization = load_config(folder)["quantization_config"]
    model = load_model(
        tiny_run.artifact("merged").path, dtype="float16", quantization_config=quantization
    )
    model.save_pretrained(tmp_path)
    found, expected = Weights(folder), Weights(tmp_path)
    assert set(found) == set(expected)
    for tensor in expected:
        if "quant_state" in tensor:
            states = [json.loads(bytes(w[tensor].tolist())) for w in (found, expected)]
            assert states[0] == states[1]
        else:
            assert found.spec(tensor) == expected.spec(tensor)
            assert torch.equal(found[tensor], expected[tensor])
    configs = [json.loads((f / "config.json").read_text("utf-8")) for f in (folder, tmp_path)]
    assert configs[0] == configs[1]


@pytest.mark.slow
def test_a_format_that_is_larger_than_its_name_says_why(
    tiny_sentencepiece: Path, tiny_run: Run, tmp_path: Path
) -> None:
    """Rows of 64 and 128 do not divide by 256; those of the other model do."""
    small = {"formats": ["fp16", "gguf-f16", "gguf-q4_k_m"], "calibration_tokens": 256}
    recipe = tiny_recipe(tiny_sentencepiece, write_rows(tmp_path / "rows.jsonl"), quantize=small)
    run = open_run(tmp_path / "run", recipe)
    execute(run, stop="quantize")
    metrics = run.artifact("variants/gguf-q4_k_m").metrics
    assert metrics["why"].startswith("larger than its name says: 15 of 16 tensors have rows")
    assert "why" not in run.artifact("variants/gguf-f16").metrics
    assert "why" not in tiny_run.artifact("variants/gguf-q4_k_m").metrics
