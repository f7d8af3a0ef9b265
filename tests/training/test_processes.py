"""Two processes (gloo, on the CPU) train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from housecall.errors import ConfigError
from housecall.pipeline import Run, execute, open_run
from housecall.steps.train import run as train
from tiny_runs import tiny_recipe, write_rows

SECTIONS = {
    "train": {
        "max_steps": 12,
        "epochs": 10.0,
        "tokens_per_step": 256,
        "learning_rate": 5e-3,
        "precision": "fp32",
        "quantization": "none",
        "safety_tokens": 0,
    }
}


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def prepared(tiny_llama: Path, tmp_path: Path) -> Run:
    recipe = tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"), **SECTIONS)
    run = open_run(tmp_path / "run", recipe)
    execute(run, stop="prepare")
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_give_the_loss_curve_of_one(prepared: Run, tmp_path: Path) -> None:
    base, dataset = prepared.artifact("base"), prepared.artifact("dataset")
    one = history(train(prepared.recipe.train, base, dataset, tmp_path / "one").path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", "-m", "housecall", "train", str(prepared.path), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["training"]["processes"] == 2
    two = history(prepared.artifact("adapter").path)
    for single, double in zip(one, two, strict=True):
        assert double["loss"] == pytest.approx(single["loss"], rel=1e-4)
        assert double["tokens"] == single["tokens"]
        assert ("held_out_loss" in double) == ("held_out_loss" in single)
        if "held_out_loss" in single:
            assert double["held_out_loss"] == pytest.approx(single["held_out_loss"], rel=1e-4)
    assert one[-1]["loss"] < one[0]["loss"] - 0.3


def test_several_processes_train_and_do_nothing_else(
    prepared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="merge: only train works with several processes"):
        execute(prepared, start="merge", stop="merge")
