"""An adapter as PEFT reads it: ``adapter_model.safetensors`` and ``adapter_config.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from housecall.config import TrainConfig

MODEL_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


def save(
    folder: Path,
    config: TrainConfig,
    weights: Mapping[str, torch.Tensor],
    names: Iterable[str],
    base: str,
) -> None:
    """Write ``NAME.down`` and ``NAME.up`` of each layer; ``base`` says what they were made for."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    tensors = {}
    for name in names:
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = weights[f"{name}.down"].cpu().contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = weights[f"{name}.up"].cpu().contiguous()
    save_file(tensors, folder / MODEL_FILE, metadata={"format": "pt"})
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.layers),
        base_model_name_or_path=base,
        inference_mode=True,
    ).to_dict()
    text = json.dumps(settings, indent=2, sort_keys=True, default=_plain)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def deltas(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """``scale * B A`` in float32 of each layer of a saved adapter, by the layer's name."""
    from safetensors import safe_open

    settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    scale = settings["lora_alpha"] / settings["r"]
    with safe_open(folder / MODEL_FILE, "pt") as file:
        for key in sorted(file.keys()):
            if key.endswith(".lora_A.weight"):
                name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
                up = file.get_tensor(key.replace(".lora_A.", ".lora_B.")).float()
                yield name, scale * (up @ file.get_tensor(key).float())


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))
