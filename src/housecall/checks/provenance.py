"""Is the merged model what its history says: the base plus this run's adapter?

Everything behind it (GGUF parity, the gate's figures) compares with the merged model, so that a
wrong adapter in it would show nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from housecall.artifact import Artifact
from housecall.steps.base import open_weights, read_json
from housecall.weights import Weights

_PREFIX = "base_model.model."


def merge_fault(merged: Artifact) -> str | None:
    """What of the merged weights is not base + adapter, in one line; None when all is.

    Raises ArtifactError when base or adapter are not those that the merged model names, or are
    damaged.
    """
    parents = {parent.kind: Artifact.load(parent.path) for parent in merged.parents()}
    base, adapter = parents["base"], parents["adapter"]
    wrong = list(_wrong_tensors(merged.path, base.path, adapter.path))
    if not wrong:
        return None
    return (
        f"{merged.path}: {len(wrong)} of its tensors are not those of {base.path} with "
        f"{adapter.path} merged in, such as {wrong[0]}: an adapter of another run was merged"
    )


def _wrong_tensors(merged: Path, base: Path, adapter: Path) -> Iterator[str]:
    settings = read_json(adapter / "adapter_config.json")
    rank = settings["r"]
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    with open_weights(base) as old, open_weights(merged) as new, open_weights(adapter) as lora:
        for name in old.names:
            change = _change(name, lora, scale)
            expected = old[name].float() + change
            found = new[name]
            # Rounding to the stored type moves a weight by half a step at most.
            rounding = torch.finfo(found.dtype).eps * float(expected.norm())
            error = float((found.float() - expected).norm())
            if not error <= rounding + 1e-3 * float(torch.as_tensor(change).norm()):
                yield name


def _change(name: str, lora: Weights, scale: float) -> Any:
    """What the adapter adds to a tensor: (alpha / r) B A."""
    key = _PREFIX + name.removesuffix(".weight")
    if f"{key}.lora_A.weight" not in lora.names:
        return torch.zeros(1)
    return scale * (lora[f"{key}.lora_B.weight"].float() @ lora[f"{key}.lora_A.weight"].float())
