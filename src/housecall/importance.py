"""The importance matrix: how strongly each column of each weight is used by real text.

For a linear layer with inputs x, the mean of x_j^2 over calibration tokens weighs the error of
column j when the layer is quantised. Source: llama.cpp's ``tools/imatrix``.

The model is never in memory whole: accelerate's hooks bring each weight in just before it is used
and take it out again, from files that are mapped no longer than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from housecall.causal_lm import compute_dtype, make_batches, pick_device, quiet_libraries
from housecall.chat_template import Encoded
from housecall.gguf.llama import gguf_name
from housecall.progress import bar
from housecall.weights import Weights

Importance = dict[str, NDArray[np.float32]]

_BATCH = 1024  # tokens: the larger, the more activations; the smaller, the more often weights load


@torch.no_grad()
def measure_importance(folder: Path, rows: Sequence[Encoded]) -> Importance:
    """Mean squared input of each linear layer, by GGUF tensor name; arrays of (columns,)."""
    device = pick_device()
    model = _streamed(folder, device)
    sums: dict[str, torch.Tensor] = {}
    keep = torch.ones(0, dtype=torch.bool)

    def listen(name: str) -> Callable[[Any, Any], None]:
        def hook(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            squared = inputs[0][keep].double().square().sum(dim=0)
            sums[name] = sums.get(name, torch.zeros_like(squared)) + squared

        return hook

    for name, module in model.named_modules(prefix="model"):
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(listen(gguf_name(f"{name}.weight")))
    count = 0
    batches = make_batches(rows, _BATCH)
    with bar("imatrix", len(batches)) as progress:
        for batch in (b.to(device) for b in batches):
            keep = batch.mask.bool()
            model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
            count += batch.tokens
            progress.advance()
    return {name: (total / count).float().cpu().numpy() for name, total in sums.items()}


def _streamed(folder: Path, device: torch.device) -> Any:
    """The decoder (without the output matrix), its weights in the files until they are used."""
    quiet_libraries()
    from accelerate import init_empty_weights
    from accelerate.hooks import attach_align_device_hook
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):  # buffers are computed, not stored
        model = AutoModel.from_config(config, dtype=compute_dtype(device))
    model.eval()
    attach_align_device_hook(
        model,
        execution_device=device,
        offload=True,
        weights_map=Weights(folder),
        module_name="model",  # so are its weights called in the files of a causal model
    )
    return model
