"""The importance matrix of streamed layers is that of the whole model, and small."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import numpy as np
import torch

from housecall.causal_lm import compute_dtype, load_model, make_batches, pick_device
from housecall.chat_template import Encoded
from housecall.importance import measure_importance
from tiny_models import make_tiny_qwen2

ROWS = [Encoded(list(range(5, 5 + n)), [0] * n) for n in (40, 7, 23)]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_streamed_is_whole(family: str, tiny_llama: Path, tmp_path: Path) -> None:
    folder = tiny_llama if family == "llama" else make_tiny_qwen2(tmp_path)
    found = measure_importance(folder, ROWS)
    assert len(found) == 2 * 7
    model = load_model(folder, dtype=compute_dtype(pick_device()))
    inputs: list[torch.Tensor] = []
    layer = model.model.layers[1].mlp.down_proj
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    total, count = torch.zeros(layer.in_features, dtype=torch.float64), 0
    with torch.no_grad():
        for batch in make_batches(ROWS, 2048):
            model.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
            kept = inputs.pop()[batch.mask.bool()]
            total += kept.double().square().sum(dim=0)
            count += len(kept)
    assert np.array_equal(found["blk.1.ffn_down.weight"], (total / count).float().numpy())
