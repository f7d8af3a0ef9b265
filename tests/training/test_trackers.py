"""What trackers are told; each one is tested where it is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from housecall.pipeline import Run
from housecall.steps import train


def train_with(tracker: str, run: Run, out: Path) -> Path:
    """A short training that tells ``tracker``; where that wrote."""
    plain = {"max_steps": 3, "safety_tokens": 0, "evaluations": 1, "trackers": (tracker,)}
    config = run.recipe.train.model_copy(update=plain)
    made = train.run(config, run.artifact("base"), run.artifact("dataset"), out / "adapter")
    assert made.metrics["steps"] == 3
    return out / "trackers"


def test_tensorboard_has_the_loss_of_each_step(tiny_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train_with("tensorboard", tiny_run, tmp_path)
    found = EventAccumulator(str(folder / "housecall"))
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # its own
def test_mlflow_has_the_loss_of_each_step(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that what training sets is taken back afterwards
        monkeypatch.delenv(name)
    folder = train_with("mlflow", tiny_run, tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'housecall'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["max_steps"] == "3"
    assert run.data.params["learning_rate"] == str(tiny_run.recipe.train.learning_rate)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert not list((tmp_path / "here").iterdir())
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
