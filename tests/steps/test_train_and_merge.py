"""train and merge: the loss falls, an interrupted run ends the same, the merge is the formula."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from housecall.artifact import Artifact
from housecall.errors import ArtifactError
from housecall.pipeline import Run, execute, open_run
from housecall.steps import merge, train
from tiny_runs import tiny_recipe, write_rows


def test_training_lowers_the_held_out_loss(tiny_run: Run, tmp_path: Path) -> None:
    config = tiny_run.recipe.train.model_copy(
        update={"max_steps": 30, "learning_rate": 5e-3, "epochs": 30.0}
    )
    base, dataset = tiny_run.artifact("base"), tiny_run.artifact("dataset")
    metrics = train.run(config, base, dataset, tmp_path / "adapter").metrics
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.5
    assert metrics["trainable_parameters"] == 2 * 4 * (
        2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 512)
    )


def test_loss_before_training_is_that_of_a_base_whose_4_bit_weights_get_gradients(
    tiny_run: Run, tmp_path: Path
) -> None:
    """bitsandbytes repacks weights in a forward pass without gradients, and then loses them."""
    adapter = load_file(tiny_run.artifact("adapter").path / "adapter_model.safetensors")
    learned = {name for name, weights in adapter.items() if "lora_B" in name and weights.any()}
    assert len(learned) == 2 * 7  # every layer of both blocks: gradients reach the first one


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    tiny_llama: Path, tmp_path: Path
) -> None:
    sections = {
        "train": {
            "max_steps": 100,
            "epochs": 100.0,
            "tokens_per_step": 128,
            "checkpoint_seconds": 0.0,
            "lora_dropout": 0.1,
        }
    }
    recipe = tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"), **sections)
    whole = open_run(tmp_path / "whole", recipe)
    execute(whole, stop="train")
    broken = open_run(tmp_path / "broken", recipe)
    execute(broken, stop="prepare")
    command = [sys.executable, "-m", "housecall", "train", str(broken.path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(broken.path.glob(".adapter.*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()  # at once: a fast machine has done all steps soon
    process.wait()
    assert not (broken.path / "adapter").exists()
    checkpoint = next(broken.path.glob(".adapter.*.checkpoint"))
    done = torch.load(checkpoint, weights_only=True)["progress"]["step"]
    assert 0 < done < 100
    execute(broken, stop="train")
    name = "adapter_model.safetensors"
    assert broken.artifact("adapter").file(name) == whole.artifact("adapter").file(name)
    assert list(broken.path.glob(".adapter*")) == []


def test_merged_is_base_plus_scaled_product(tiny_run: Run) -> None:
    base = load_file(tiny_run.artifact("base").path / "model.safetensors")
    merged = load_file(tiny_run.artifact("merged").path / "model.safetensors")
    adapter = load_file(tiny_run.artifact("adapter").path / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{x}.weight"].float() for x in "AB")
    expected = (base[f"{name}.weight"].float() + (8 / 4) * b @ a).half()
    assert torch.equal(merged[f"{name}.weight"], expected)
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"])


def test_an_adapter_of_another_base_is_refused(
    tiny_run: Run, tiny_llama: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"))
    other = open_run(tmp_path / "other", recipe)
    execute(other, stop="prepare")
    with pytest.raises(ArtifactError, match="trained on another base"):
        merge.run(
            recipe.merge,
            other.artifact("base"),
            tiny_run.artifact("adapter"),
            tmp_path / "merged",
        )


def test_the_adapter_names_no_path_of_this_machine(tiny_run: Run) -> None:
    folder = tiny_run.artifact("adapter").path
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_run.recipe.base.source
    assert Artifact.load(folder).metrics["steps"] == 4
