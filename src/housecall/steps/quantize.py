"""quantize: the merged model in each format, every format an artifact of its own.

``fp16`` is the merged folder; ``int8`` and ``int4`` are bitsandbytes folders that plain
transformers loads; the GGUF formats are made tensor by tensor with llama.cpp's own kernels and,
below Q8_0, with an importance matrix from the training split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from housecall.artifact import MANIFEST, Artifact, Draft, create
from housecall.checks.parity import REPORT, Parity
from housecall.config import Format, QuantizeConfig
from housecall.lineage import GGUF_FILE, gguf_fields
from housecall.machine import cpu_count
from housecall.progress import bar
from housecall.steps.base import (
    TOKENIZER_FILES,
    HfTokenizer,
    copy_files,
    link_or_copy,
    load_template,
    open_weights,
    read_json,
)


def run(
    config: QuantizeConfig, merged: Artifact, dataset: Artifact, out: Path, *, anew: bool = False
) -> list[Artifact]:
    """Make the formats in ``out/FORMAT``; returns all, in order.

    Those that are there, of the same parents and config, are kept unless ``anew``. Raises
    ParityFailed for a GGUF file with which the engine is not the merged model.
    """
    matrix = out.parent / "imatrix"
    settings = config.of_matrix()
    importance = None if anew else _kept(matrix, settings, [merged, dataset])
    if importance is None:
        importance = _make_importance(config, merged, dataset, matrix)
    variants = []
    parity = Parity(config.parity, merged.path)
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        for fmt in config.formats:
            parents = [merged, importance] if fmt.startswith("gguf-") else [merged]
            found = None if anew else _kept(out / fmt, config.of_format(fmt), parents)
            variants.append(found or _make(fmt, config, parents, out / fmt, pool, parity))
    return variants


def _kept(out: Path, settings: dict[str, Any], parents: Sequence[Artifact]) -> Artifact | None:
    """The artifact at ``out`` if it is whole and was made from this."""
    if not (out / MANIFEST).exists():
        return None
    found = Artifact.load(out, verify=False)
    made_from = [parent["sha256"] for parent in found.manifest["parents"]]
    same = found.manifest["config"] == settings and made_from == [p.sha256 for p in parents]
    return found if same else None


def _make(
    fmt: Format,
    config: QuantizeConfig,
    parents: Sequence[Artifact],
    out: Path,
    pool: ProcessPoolExecutor,
    parity: Parity,
) -> Artifact:
    """One variant; ``parents`` are the merged model and, for GGUF, the importance matrix."""
    with create(out, "variant", config=config.of_format(fmt), parents=parents) as draft:
        if fmt.startswith("gguf-"):
            _make_gguf(fmt, parents[0], parents[1], draft, pool)
            refused = out.with_name(f"{fmt}.refused.json")
            parity.require(draft.path / GGUF_FILE, fmt, draft.path / REPORT, refused)
        else:
            _make_folder(fmt, parents[0].path, draft.path)
        draft.metrics["format"] = fmt
    return Artifact.load(out, verify=False)


def _make_importance(
    config: QuantizeConfig, merged: Artifact, dataset: Artifact, out: Path
) -> Artifact:
    """The importance matrix of the merged model, from the training split."""
    from safetensors.numpy import save_file

    from housecall.causal_lm import encode_dialogues, read_dialogues, take_tokens
    from housecall.importance import measure_importance

    tokenizer = HfTokenizer(merged.path)
    template = load_template(merged.path, tokenizer)
    dialogues = read_dialogues(dataset.path / "train.jsonl")
    encoded = encode_dialogues(dialogues, template, tokenizer, tokenizer.end_of_turn)
    rows = take_tokens(encoded, config.calibration_tokens)
    with create(out, "imatrix", config=config.of_matrix(), parents=[merged, dataset]) as draft:
        save_file(measure_importance(merged.path, rows), draft.path / "imatrix.safetensors")
        draft.metrics |= {
            "rows": f"the first {len(rows)} of the training split",
            "tokens": sum(len(row.ids) for row in rows),
        }
    return Artifact.load(out, verify=False)


def _make_folder(fmt: str, merged: Path, out: Path) -> None:
    if fmt == "fp16":
        for file in merged.iterdir():
            if file.name != "manifest.json":
                link_or_copy(file, out / file.name)
        return
    from housecall.causal_lm import compute_dtype, load_model, pick_device, quiet_libraries

    quiet_libraries()
    from transformers import BitsAndBytesConfig

    device = pick_device()
    quantization = (
        BitsAndBytesConfig(load_in_8bit=True)
        if fmt == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(device),
        )
    )
    with bar(fmt, 2) as progress:
        model = load_model(
            merged, dtype="float16", device_map={"": device}, quantization_config=quantization
        )
        progress.advance()
        model.save_pretrained(out)
        copy_files(merged, out, [*TOKENIZER_FILES, "generation_config.json"])
        progress.advance()


def _make_gguf(
    fmt: str, merged: Artifact, importance: Artifact, draft: Draft, pool: ProcessPoolExecutor
) -> None:
    from housecall.gguf.files import TensorInfo, write_gguf
    from housecall.gguf.llama import gguf_name, model_shape
    from housecall.gguf.mixture import tensor_type, uses_importance

    config = read_json(merged.path / "config.json")
    shape = model_shape(config)
    tensors: list[TensorInfo] = []
    fallbacks: Counter[str] = Counter()
    with open_weights(merged.path, "np") as weights:
        names = weights.names
        for name in names:
            target, dims = gguf_name(name), weights.shape(name)
            kind, wanted = tensor_type(fmt, target, dims, shape)
            tensors.append(TensorInfo(target, dims, kind))
            if wanted is not None:
                fallbacks[f"{wanted.name} -> {kind.name}"] += 1
    matrix = importance.path / "imatrix.safetensors" if uses_importance(fmt) else None
    jobs = [
        (merged.path, name, tensor.name, int(tensor.kind), matrix, config)
        for name, tensor in zip(names, tensors, strict=True)
    ]
    fields = _fields(fmt, merged, importance, matrix is not None)
    with bar(fmt, len(jobs)) as progress:
        packed = _in_order(pool, jobs, progress.advance)
        write_gguf(draft.path / GGUF_FILE, fields, tensors, packed)
    draft.metrics |= {
        "tensor_types": dict(Counter(tensor.kind.name for tensor in tensors)),
        "fallbacks": dict(fallbacks),
        "importance_matrix": matrix is not None,
    }


def _in_order(
    pool: ProcessPoolExecutor, jobs: Sequence[tuple[Any, ...]], done: Any
) -> Iterator[Any]:
    """Results in the order of the jobs; only a few are under way, so that memory stays small."""
    ahead = 2 * cpu_count()
    running: list[Future[Any]] = []
    waiting = iter(jobs)
    while True:
        while len(running) < ahead and (job := next(waiting, None)) is not None:
            running.append(pool.submit(_pack, *job))
        if not running:
            return
        yield running.pop(0).result()
        done()


def _pack(
    folder: Path,
    name: str,
    target: str,
    kind: int,
    matrix: Path | None,
    config: dict[str, Any],
) -> Any:
    """One tensor, in a process of the pool (libgguf holds Python's lock while it works)."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from safetensors import safe_open

    from housecall.gguf.files import pack
    from housecall.gguf.llama import to_gguf_order

    with open_weights(folder, "np") as weights:
        tensor = to_gguf_order(target, config)(weights[name]).astype(np.float32)
    importance = None
    if matrix is not None:
        with safe_open(matrix, "np") as file:
            importance = file.get_tensor(target) if target in set(file.keys()) else None
    return pack(tensor, GGMLQuantizationType(kind), importance)


def _fields(fmt: str, merged: Artifact, importance: Artifact, with_matrix: bool) -> dict[str, Any]:
    """All keys of the GGUF file: the model's, and ours that name what it was made from."""
    from housecall.gguf.llama import hyperparameters
    from housecall.gguf.mixture import file_type
    from housecall.gguf.vocabulary import gguf_vocabulary

    config = read_json(merged.path / "config.json")
    fields: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": os.path.basename(os.path.dirname(merged.path.resolve())),
        **gguf_fields(merged),
        **hyperparameters(config),
        "general.file_type": int(file_type(fmt)),
        **gguf_vocabulary(merged.path, int(config["vocab_size"])),
        "general.quantization_version": 2,
        "housecall.format": fmt,
    }
    if with_matrix:
        fields["housecall.imatrix"] = importance.sha256
    return fields
