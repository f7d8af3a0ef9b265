"""Is the merged model what its history says: the base plus this run's adapter?

Everything behind it (GGUF parity, the gate's figures) compares with the merged model, so that a
wrong adapter in it would show nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from housecall.artifact import Artifact
from housecall.training.adapter import SavedAdapter
from housecall.weights import Weights


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
    old, new, lora = Weights(base), Weights(merged), SavedAdapter(adapter)
    layers = {f"{layer}.weight": layer for layer in lora.layers}
    for name in old.names:
        change = lora.delta(layers[name]) if name in layers else torch.zeros(1)
        expected = old[name].float() + change
        found = new[name]
        # Rounding to the stored type moves a weight by half a step at most.
        rounding = torch.finfo(found.dtype).eps * float(expected.norm())
        error = float((found.float() - expected).norm())
        if not error <= rounding + 1e-3 * float(change.norm()):
            yield name
