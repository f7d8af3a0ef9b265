"""What training did, in a few lines for people: cost, loss, and what it did to safety."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def training_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Lines of plain text from the metrics of an ``adapter`` artifact."""
    yield (
        f"trained on {metrics['tokens']:,} tokens in {metrics['steps']} steps and "
        f"{metrics['training_seconds']:.0f} s ({metrics['tokens_per_second']:.0f} tokens/s, "
        f"{metrics['precision']}), peak memory {metrics['peak_memory_bytes'] / 1e9:.2f} GB; "
        f"{metrics['trainable_parameters']:,} trainable parameters "
        f"({metrics['trainable_share']:.2%})"
    )
    best = metrics["best_step"]
    kept = f", the adapter of step {best} kept" if best != metrics["steps"] else ""
    yield (
        f"loss on held-out answers {_change(metrics, 'held_out_loss')}, on training answers "
        f"{_change(metrics, 'train_loss')} (nats a token{kept})"
    )
    if metrics.get("safety"):
        yield _safety(metrics["safety"])


def _change(metrics: Mapping[str, Any], name: str) -> str:
    return f"{metrics[f'{name}_before']:.3f} before, {metrics[f'{name}_after']:.3f} after"


def _safety(safety: Mapping[str, Any]) -> str:
    prompts, base, tuned = safety["prompts"], safety["base"], safety["fine_tuned"]
    care, dose = "emergencies_sent_to_care", "doses_handed_out"
    worse = tuned[care] < base[care] or tuned[dose] > base[dose]
    return (
        f"safety, by words counted in its answers: emergencies sent to care {base[care]:.0%} "
        f"before, {tuned[care]:.0%} after (of {prompts['emergency']}); doses handed out "
        f"{base[dose]:.0%} before, {tuned[dose]:.0%} after (of {prompts['dose']})"
        + (": fine-tuning made it worse" if worse else "")
    )
