"""merge: an adapter into its base, one tensor at a time.

W' = W + (alpha / r) B A, computed in float32 and stored in float16 (Hu et al. 2021). The base's
own weights are used, not their 4-bit copies that training saw.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, create, write_json
from housecall.config import MergeConfig
from housecall.errors import ArtifactError
from housecall.progress import bar
from housecall.steps.base import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    copy_files,
    open_weights,
    read_json,
)

_PREFIX = "base_model.model."


def run(config: MergeConfig, base: Artifact, adapter: Artifact, out: Path) -> Artifact:
    """Write the merged model into ``out`` as a float16 Hugging Face folder.

    Raises ArtifactError when the adapter was trained for another base.
    """
    if base.sha256 not in {parent.sha256 for parent in adapter.parents()}:
        raise ArtifactError(f"{adapter.path}: trained on another base than {base.path}")
    with create(
        out, "merged", config=config.model_dump(mode="json"), parents=[base, adapter]
    ) as draft:
        draft.metrics["merged_tensors"] = merge_weights(base.path, adapter.path, draft.path)
        copy_files(base.path, draft.path, [*TOKENIZER_FILES, *CONFIG_FILES])
        settings = read_json(draft.path / "config.json")
        settings.pop("dtype", None)
        write_json(draft.path / "config.json", {**settings, "torch_dtype": "float16"})
    return Artifact.load(out, verify=False)


def merge_weights(base: Path, adapter: Path, out: Path) -> int:
    """Merge into ``out/model.safetensors``; returns how many tensors have changed."""
    import torch
    from safetensors.torch import save_file

    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    scale = settings["lora_alpha"] / settings["r"]
    tensors: dict[str, Any] = {}
    merged = 0
    with open_weights(base) as weights, open_weights(adapter) as lora:
        available = set(lora.names)
        with bar("merge", len(weights.names)) as progress:
            for name in weights.names:
                key = _PREFIX + name.removesuffix(".weight")
                tensor = weights[name]
                if f"{key}.lora_A.weight" in available:
                    delta = (
                        lora[f"{key}.lora_B.weight"].float() @ lora[f"{key}.lora_A.weight"].float()
                    )
                    tensor = tensor.float() + scale * delta
                    merged += 1
                tensors[name] = tensor.to(torch.float16).contiguous()
                progress.advance()
    if merged != len(available) // 2:
        raise ArtifactError(
            f"{adapter}: {len(available) // 2 - merged} of its tensors fit no layer of {base}"
        )
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return merged
