"""A causal language model computed layer by layer, in float32.

The weights of a layer are read when it runs and let go after it, so that a model needs the memory
of its largest layer and not of all of them (TinyLlama's shape: 0.3 GB in place of 4.4 GB).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from housecall.causal_lm import quiet_libraries
from housecall.errors import ArtifactError
from housecall.gguf.files import GgufFile
from housecall.gguf.llama import gguf_name, hf_name, to_hf_order
from housecall.steps.base import read_json
from housecall.weights import Weights

ReadTensor = Callable[[str], torch.Tensor]
"""Gives a weight by its Hugging Face name, in float32 and in Hugging Face's order of rows."""


def streamed_model(folder: Path, read: ReadTensor) -> Any:
    """The model of ``folder``'s config.json, whose weights come from ``read`` as they are needed.

    It is called as any model of transformers.
    """
    quiet_libraries()
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.tie_word_embeddings = False  # ``read`` gives the embedding twice instead
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, module in model.named_modules():
        if parameters := [key for key, _ in module.named_parameters(recurse=False)]:
            _stream(module, {key: f"{name}.{key}" for key in parameters}, read)
    return model.eval()


def read_folder(folder: Path) -> ReadTensor:
    """Weights of a Hugging Face folder."""
    weights = Weights(folder)
    tied = _tied(read_json(folder / "config.json"))

    def read(name: str) -> torch.Tensor:
        tensor: torch.Tensor = weights[tied.get(name, name)]
        return tensor.float()

    return read


def read_gguf(path: Path, config: dict[str, Any]) -> ReadTensor:
    """Dequantised weights of a GGUF file; ``config`` is the model's config.json.

    Raises ArtifactError for a file that lacks a tensor.
    """
    file = GgufFile(path)
    tied = _tied(config)
    names = {hf_name(name) for name in file.names}

    def read(name: str) -> torch.Tensor:
        wanted = tied.get(name, name)
        if wanted not in names:
            raise ArtifactError(f"{path}: lacks tensors, such as {wanted}")
        target = gguf_name(wanted)
        return torch.from_numpy(to_hf_order(target, config)(file.tensor(target)).copy())

    return read


def _tied(config: dict[str, Any]) -> dict[str, str]:
    tied = config.get("tie_word_embeddings", False)
    return {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}


def _stream(module: torch.nn.Module, names: dict[str, str], read: ReadTensor) -> None:
    """Let a module have its own parameters only while it runs."""

    def load(*_: Any) -> None:
        for key, name in names.items():
            setattr(module, key, torch.nn.Parameter(read(name), requires_grad=False))

    def drop(*_: Any) -> None:
        for key in names:
            parameter = getattr(module, key)
            setattr(module, key, torch.nn.Parameter(parameter.to("meta"), requires_grad=False))

    module.register_forward_pre_hook(load)
    module.register_forward_hook(drop)
