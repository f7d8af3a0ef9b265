"""The importance matrix: how strongly each column of each weight is used by real text.

For a linear layer with inputs x, the mean of x_j^2 over calibration tokens weighs the error of
column j when the layer is quantised. Source: llama.cpp's ``tools/imatrix``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from housecall.causal_lm import compute_dtype, load_model, make_batches, pick_device
from housecall.chat_template import Encoded
from housecall.gguf.llama import gguf_name
from housecall.progress import bar

Importance = dict[str, NDArray[np.float32]]


@torch.no_grad()
def measure_importance(folder: Path, rows: Sequence[Encoded]) -> Importance:
    """Mean squared input of each linear layer, by GGUF tensor name; arrays of (columns,)."""
    device = pick_device()
    model = load_model(folder, dtype=compute_dtype(device)).to(device)
    sums: dict[str, torch.Tensor] = {}
    keep = torch.ones(0, dtype=torch.bool)

    def listen(name: str) -> Callable[[Any, Any], None]:
        def hook(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            squared = inputs[0][keep].double().square().sum(dim=0)
            sums[name] = sums.get(name, torch.zeros_like(squared)) + squared

        return hook

    for name, module in model.model.named_modules(prefix="model"):
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(listen(gguf_name(f"{name}.weight")))
    count = 0
    batches = make_batches(rows, 2048)
    with bar("imatrix", len(batches)) as progress:
        for batch in (b.to(device) for b in batches):
            keep = batch.mask.bool()
            model.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
            count += batch.tokens
            progress.advance()
    return {name: (total / count).float().cpu().numpy() for name, total in sums.items()}
