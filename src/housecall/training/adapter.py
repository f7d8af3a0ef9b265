"""An adapter as PEFT reads it: ``adapter_model.safetensors`` and ``adapter_config.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from housecall.config import TrainConfig
from housecall.steps.base import read_json
from housecall.weights import Weights

MODEL_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


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
        tensors[f"{_PREFIX}{name}{_DOWN}"] = weights[f"{name}.down"].cpu().contiguous()
        tensors[f"{_PREFIX}{name}{_UP}"] = weights[f"{name}.up"].cpu().contiguous()
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


class SavedAdapter:
    """An adapter's folder; only one product of it is in memory at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactError when it is damaged."""
        settings = read_json(folder / CONFIG_FILE)
        self._scale = float(settings["lora_alpha"] / settings["r"])
        self._weights = Weights(folder)
        self.layers = sorted(
            key.removeprefix(_PREFIX).removesuffix(_DOWN)
            for key in self._weights
            if key.endswith(_DOWN)
        )

    def delta(self, layer: str) -> torch.Tensor:
        """``alpha / r * B A`` in float32: what is added to a layer's weight."""
        down, up = (self._weights[f"{_PREFIX}{layer}{part}"].float() for part in (_DOWN, _UP))
        product: torch.Tensor = self._scale * (up @ down)
        return product


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))
