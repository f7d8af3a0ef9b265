"""What a training keeps, when it ends, and how it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from housecall.config import TrainConfig
from housecall.errors import ArtifactError, HousecallError, MissingPackage
from housecall.pipeline import Run, execute, open_run
from housecall.steps import train
from housecall.training import memory
from housecall.training.batches import pack
from housecall.training.checkpoint import CheckpointFile, Progress
from housecall.training.trainer import Trainer, schedule
from tiny_runs import tiny_recipe, write_rows


def config_of(run: Run, **changes: Any) -> TrainConfig:
    plain = {"max_steps": 12, "epochs": 20.0, "safety_tokens": 0, "evaluations": 6, **changes}
    return run.recipe.train.model_copy(update=plain)


def trained(run: Run, out: Path, **changes: Any) -> Any:
    config = config_of(run, **changes)
    return train.run(config, run.artifact("base"), run.artifact("dataset"), out)


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_best_adapter_is_kept_and_a_training_that_gets_worse_stops(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Said here, because a rate that makes things worse on one processor may not on another.
    judged = iter([3.0, 2.0, 2.5, 2.6, 1.0])
    kept: list[torch.Tensor] = []
    real = Trainer.loss

    def loss(trainer: Trainer, batches: Any, title: str) -> float:
        if title != "validate":
            return real(trainer, batches, title)
        kept.append(next(trainer.decoder.parameters()).detach().clone())
        return next(judged)

    monkeypatch.setattr(Trainer, "loss", loss)
    made = trained(tiny_run, tmp_path / "adapter", patience=2, max_steps=20, evaluations=10)
    metrics = made.metrics
    assert metrics["stopped_early"]
    assert (metrics["steps"], metrics["best_step"]) == (8, 4)
    assert metrics["held_out_loss_after"] == 2.0
    saved = load_file(made.path / "adapter_model.safetensors")
    shape = kept[1].shape
    assert any(t.shape == shape and torch.equal(t, kept[1]) for t in saved.values())
    assert not any(t.shape == shape and torch.equal(t, kept[3]) for t in saved.values())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_what_is_kept_is_what_was_judged(tiny_run: Run, tmp_path: Path) -> None:
    """The saved adapter, loaded by PEFT, has the loss that the summary states."""
    from peft import PeftModel

    from housecall.causal_lm import load_model
    from housecall.chat_template import IGNORE

    made = trained(tiny_run, tmp_path / "adapter", quantization="none", learning_rate=1e-2)
    base = tiny_run.artifact("base").path
    model = PeftModel.from_pretrained(load_model(base, dtype="float32"), made.path)
    rows = train._encode(tiny_run.artifact("base"), tiny_run.artifact("dataset"), "validation")
    total, count = 0.0, 0
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != IGNORE).sum())
    assert total / count == pytest.approx(made.metrics["held_out_loss_after"], rel=2e-3)


def test_the_course_is_kept_in_figures_and_pictures(tiny_run: Run, tmp_path: Path) -> None:
    made = trained(tiny_run, tmp_path / "adapter")
    entries = history(made.path)
    assert [entry["step"] for entry in entries] == list(range(1, 13))
    assert entries[0].keys() >= {"loss", "gradient_norm", "learning_rate", "tokens_per_s"}
    assert (made.path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "held-out rows" in (made.path / "loss.svg").read_text()
    metrics = made.metrics
    assert metrics["train_loss_after"] < metrics["train_loss_before"]
    assert 0 < metrics["trainable_share"] < 1
    assert metrics["memory_estimate_bytes"] > 0


@pytest.mark.slow
def test_half_precision_scales_the_loss_and_leaves_out_steps_that_overflow(
    tiny_run: Run, tmp_path: Path
) -> None:
    """float16, as on a GPU without bfloat16: the first scale is too large, later ones fit."""
    made = trained(tiny_run, tmp_path / "adapter", precision="fp16", learning_rate=1e-2)
    entries = history(made.path)
    assert made.metrics["precision"] == "float16"
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in entries)
    assert made.metrics["held_out_loss_after"] < made.metrics["held_out_loss_before"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_no_number_is_one_clear_line(
    precision: str, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from housecall.training.decoder import Decoder

    real = Decoder.loss
    monkeypatch.setattr(Decoder, "loss", lambda self, batch: real(self, batch) * float("nan"))
    with pytest.raises(HousecallError, match=r"loss became nan at step 1: lower train.learning"):
        trained(tiny_run, tmp_path / "adapter", precision=precision)
    assert not (tmp_path / "adapter").exists()


def test_too_little_memory_is_said_before_anything_is_loaded(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small:
        available = 100_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    with pytest.raises(
        HousecallError, match=r"needs about 0\.\d GB .* 0\.1 GB are free: try --set"
    ):
        trained(tiny_run, tmp_path / "adapter")


def test_memory_grows_with_what_is_kept() -> None:
    shape = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }

    def gigabytes(**changes: Any) -> float:
        return memory.needed(TrainConfig(**changes), shape, 512, torch.bfloat16) / 1e9

    assert gigabytes() == pytest.approx(2.6, rel=0.25)  # measured: docs/results.md
    assert gigabytes(gradient_checkpointing=True) < gigabytes() - 0.8
    assert gigabytes(micro_batch_tokens=512) < gigabytes() - 0.8
    assert gigabytes(quantization="none") > gigabytes()


def test_a_data_set_of_another_base_is_refused(
    tiny_run: Run, tiny_llama: Path, tmp_path: Path
) -> None:
    other = open_run(
        tmp_path / "other", tiny_recipe(tiny_llama, write_rows(tmp_path / "rows.jsonl"))
    )
    execute(other, stop="prepare")
    with pytest.raises(ArtifactError, match="prepared for another base"):
        train.run(
            config_of(tiny_run),
            tiny_run.artifact("base"),
            other.artifact("dataset"),
            tmp_path / "adapter",
        )


def test_a_damaged_checkpoint_is_said_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = CheckpointFile(tmp_path / "adapter", ["x"])
    file.save(Progress(step=3), {"weights": {}})
    found = file.load(torch.device("cpu"))
    assert found is not None
    assert found[0].step == 3
    file.path.write_bytes(file.path.read_bytes()[:100])
    assert file.load(torch.device("cpu")) is None
    assert CheckpointFile(tmp_path / "adapter", ["y"]).load(torch.device("cpu")) is None


def test_a_tracker_that_is_not_installed_names_the_pip_line(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else real(name, *a)
    )
    with pytest.raises(MissingPackage, match="pip install mlflow"):
        trained(tiny_run, tmp_path / "adapter", trackers=("mlflow",))


def test_warm_up_and_cosine() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_adapters_of_the_named_layers_only(tiny_run: Run, tmp_path: Path) -> None:
    made = trained(tiny_run, tmp_path / "adapter", layers=("q_proj", "v_proj"), max_steps=2)
    names = load_file(made.path / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}
    settings = json.loads((made.path / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q_proj", "v_proj"]


def test_gradient_accumulation_is_in_the_recipe(tiny_run: Run, tmp_path: Path) -> None:
    whole = history(trained(tiny_run, tmp_path / "a", precision="fp32", max_steps=4).path)
    parts = history(
        trained(
            tiny_run, tmp_path / "b", precision="fp32", max_steps=4, micro_batch_tokens=128
        ).path
    )
    assert [e["loss"] for e in parts] == pytest.approx([e["loss"] for e in whole], rel=1e-4)


def test_no_row_with_an_answer_is_lost_by_packing(tiny_run: Run) -> None:
    rows = train._encode(tiny_run.artifact("base"), tiny_run.artifact("dataset"), "train")
    assert pack(rows).tokens == sum(len(row.ids) for row in rows)
