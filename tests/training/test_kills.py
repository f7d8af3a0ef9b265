"""Training that is killed at any moment ends with the adapter that it would have had."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from housecall.pipeline import Run, execute, open_run
from housecall.steps.train import run as train
from tiny_runs import tiny_recipe, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 200
WEIGHTS = "adapter_model.safetensors"
SECTIONS = {
    "train": {
        "max_steps": STEPS,
        "epochs": 100.0,
        "tokens_per_step": 128,
        "checkpoint_seconds": 0.0,
        "lora_dropout": 0.1,
        "evaluations": 7,
        "safety_tokens": 0,
    }
}
# Ends the process inside the third write of a checkpoint, before it is moved into its place.
KILLED_IN_A_WRITE = """
import os, signal, sys
from housecall.cli import main
real, calls = os.fsync, []
def fsync(descriptor):
    if "checkpoint" in sys._getframe(1).f_code.co_filename:
        calls.append(1)
        if len(calls) == 3:
            os.ftruncate(descriptor, 1000)
            os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
main()
"""


@pytest.fixture
def prepared(tiny_llama: Path, tmp_path: Path) -> Run:
    run = open_run(
        tmp_path / "run", tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"), **SECTIONS)
    )
    execute(run, stop="prepare")
    return run


@pytest.fixture
def expected(prepared: Run, tmp_path: Path) -> object:
    """The adapter of a training that nothing interrupts."""
    base, dataset = prepared.artifact("base"), prepared.artifact("dataset")
    return train(prepared.recipe.train, base, dataset, tmp_path / "whole").file(WEIGHTS)


def steps_done(run: Run) -> int:
    """Steps in the last whole checkpoint; it can be read at any moment."""
    for file in run.path.glob(".adapter.*.checkpoint"):
        step: int = torch.load(file, weights_only=True)["progress"]["step"]
        return step
    return 0


def start(run: Run, *program: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *(program or ("-m", "housecall")), "train", str(run.path)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_killed_again_and_again_at_random_moments(prepared: Run, expected: object) -> None:
    moment = random.Random(5)
    seen = [0]
    for _ in range(3):
        process = start(prepared)
        deadline = time.monotonic() + 200
        while steps_done(prepared) <= seen[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
        # Within a few of 200 steps: a fast machine is not done before the kill.
        time.sleep(moment.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(steps_done(prepared))
        assert not (prepared.path / "adapter").exists()
    assert 0 < seen[1] < seen[2] < seen[3] < STEPS
    assert start(prepared).wait() == 0
    assert prepared.artifact("adapter").file(WEIGHTS) == expected
    assert list(prepared.path.glob(".adapter*")) == []


def test_killed_while_a_checkpoint_is_written(prepared: Run, expected: object) -> None:
    assert start(prepared, "-c", KILLED_IN_A_WRITE).wait() == -signal.SIGKILL
    assert list(prepared.path.glob(".adapter.*.partial"))
    assert steps_done(prepared) == 2
    assert start(prepared).wait() == 0
    assert prepared.artifact("adapter").file(WEIGHTS) == expected
    assert list(prepared.path.glob(".adapter*")) == []
