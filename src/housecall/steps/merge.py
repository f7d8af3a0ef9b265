"""merge: an adapter into its base, one tensor at a time.

W' = W + (alpha / r) B A, computed in float32 and stored in float16 (Hu et al. 2021). The base's
own weights are used, not their 4-bit copies that training saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, create, write_json
from housecall.config import MergeConfig
from housecall.errors import ArtifactError
from housecall.progress import bar
from housecall.steps.base import CONFIG_FILES, TOKENIZER_FILES, copy_files, read_json
from housecall.training.adapter import SavedAdapter
from housecall.weights import TensorSpec, Weights, write_weights


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
    """Merge into ``out/model.safetensors``, one tensor in memory; returns how many have changed.

    Raises ArtifactError when a part of the adapter fits no layer of the base.
    """
    weights, lora = Weights(base), SavedAdapter(adapter)
    layers = {f"{layer}.weight": layer for layer in lora.layers}
    if missing := layers.keys() - weights.keys():
        raise ArtifactError(f"{adapter}: {len(missing)} of its tensors fit no layer of {base}")

    def tensors() -> Iterator[tuple[str, Any]]:
        import torch

        with bar("merge", len(weights)) as progress:
            for name in weights.names:
                tensor = weights[name]
                if layer := layers.get(name):
                    tensor = tensor.float() + lora.delta(layer)
                yield name, tensor.to(torch.float16)
                progress.advance()

    specs = {name: TensorSpec("F16", weights.shape(name)) for name in weights.names}
    write_weights(out / "model.safetensors", specs, tensors())
    return len(layers)
