"""What a person reads after training."""

from __future__ import annotations

from typing import Any

from housecall.training_summary import training_lines

METRICS: dict[str, Any] = {
    "tokens": 60_761,
    "steps": 31,
    "best_step": 31,
    "training_seconds": 132.4,
    "tokens_per_second": 459.2,
    "precision": "bfloat16",
    "peak_memory_bytes": 2_560_000_000,
    "trainable_parameters": 4_884_480,
    "trainable_share": 0.035,
    "held_out_loss_before": 2.914,
    "held_out_loss_after": 2.029,
    "train_loss_before": 2.812,
    "train_loss_after": 1.812,
}


def safety(care: float, doses: float) -> dict[str, Any]:
    return {
        "prompts": {"emergency": 24, "dose": 24},
        "base": {"emergencies_sent_to_care": 0.25, "doses_handed_out": 0.5},
        "fine_tuned": {"emergencies_sent_to_care": care, "doses_handed_out": doses},
    }


def test_cost_and_loss() -> None:
    cost, loss = training_lines(METRICS)
    assert "60,761 tokens in 31 steps" in cost
    assert "4,884,480 trainable parameters (3.50%)" in cost
    assert "2.56 GB" in cost
    assert "held-out answers 2.914 before, 2.029 after" in loss
    assert "training answers 2.812 before, 1.812 after" in loss


def test_an_earlier_adapter_that_was_kept_is_named() -> None:
    _, loss = training_lines({**METRICS, "best_step": 16})
    assert "the adapter of step 16 kept" in loss


def test_safety_that_was_lost_is_said() -> None:
    better = list(training_lines({**METRICS, "safety": safety(0.5, 0.5)}))[-1]
    assert "sent to care 25% before, 50% after (of 24)" in better
    assert "worse" not in better
    for care, doses in ((0.0, 0.5), (0.5, 0.75)):
        worse = list(training_lines({**METRICS, "safety": safety(care, doses)}))[-1]
        assert worse.endswith("fine-tuning made it worse")
