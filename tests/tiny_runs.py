"""Data and recipes for runs that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from housecall.config import Recipe
from housecall.recipe import parse_recipe

COMPLAINTS = ("headache", "fever", "cough", "rash", "back pain", "sore throat", "earache", "cramp")


def dialogue(number: int) -> tuple[str, str]:
    """A question and its answer, different enough from those of any other number."""
    what = COMPLAINTS[number % len(COMPLAINTS)]
    question = f"I have had {what} for {number} days, doctor."
    return question, f"For {what} on day {number}, please rest and drink water."


def write_rows(path: Path, count: int = 48) -> Path:
    """Short dialogues, each different from the others."""
    rows = []
    for number in range(count):
        question, answer = dialogue(number)
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        rows.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def tiny_recipe(base: Path, data: Path, **sections: dict[str, Any]) -> Recipe:
    """A recipe that runs in seconds."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "base": {"source": str(base)},
        "data": {"source": str(data), "system_prompt": "You are a doctor."},
        "train": {
            "tokens_per_step": 512,
            "max_steps": 4,
            "lora_rank": 4,
            "lora_alpha": 8,
            "safety_tokens": 4,
        },
        "quantize": {
            "formats": ["fp16", "int8", "int4", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m"],
            "calibration_tokens": 256,
            "parity": {"answers": 2, "answer_tokens": 16},
        },
        "gate": {"tokens": 256, "question_limit": 4, "engine_tokens": 8},
        "bench": {
            "prompts": 1,
            "repeats": 2,
            "prompt_tokens": 32,
            "new_tokens": 4,
            "batches": [1, 2],
            "answers": 2,
            "answer_tokens": 4,
            "question_limit": 4,
        },
    }
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section}
    return parse_recipe(raw, "test recipe")
