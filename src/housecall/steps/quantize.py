"""quantize: the merged model in each format, every format an artifact of its own.

``fp16`` is the merged folder; ``int8`` and ``int4`` are bitsandbytes folders that plain
transformers loads; the GGUF formats are made with llama.cpp's own kernels and, below Q8_0, with an
importance matrix from the training split. All are made tensor by tensor, in this one process: the
model is never in memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housecall.artifact import MANIFEST, Artifact, Draft, create
from housecall.checks.parity import REPORT, Parity
from housecall.config import Format, QuantizeConfig
from housecall.lineage import GGUF_FILE, gguf_fields
from housecall.progress import bar
from housecall.steps.base import (
    TOKENIZER_FILES,
    HfTokenizer,
    copy_files,
    link_or_copy,
    load_template,
)

if TYPE_CHECKING:
    from housecall.gguf.convert import Plan

_MATRIX_FILE = "imatrix.safetensors"


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
    for fmt in config.formats:
        parents = [merged, importance] if fmt.startswith("gguf-") else [merged]
        found = None if anew else _kept(out / fmt, config.of_format(fmt), parents)
        variants.append(found or _make(fmt, config, parents, out / fmt, parity))
    return variants


def _kept(out: Path, settings: dict[str, Any], parents: Sequence[Artifact]) -> Artifact | None:
    """The artifact at ``out`` if it was made from this. Raises ArtifactError when it is damaged."""
    if not (out / MANIFEST).exists():
        return None
    found = Artifact.load(out)
    made_from = [parent["sha256"] for parent in found.manifest["parents"]]
    same = found.manifest["config"] == settings and made_from == [p.sha256 for p in parents]
    return found if same else None


def _make(
    fmt: Format,
    config: QuantizeConfig,
    parents: Sequence[Artifact],
    out: Path,
    parity: Parity,
) -> Artifact:
    """One variant; ``parents`` are the merged model and, for GGUF, the importance matrix."""
    with create(out, "variant", config=config.of_format(fmt), parents=parents) as draft:
        if fmt.startswith("gguf-"):
            _make_gguf(fmt, parents[0], parents[1], draft)
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
        save_file(measure_importance(merged.path, rows), draft.path / _MATRIX_FILE)
        draft.metrics |= {
            "rows": f"the first {len(rows)} of the training split",
            "tokens": sum(len(row.ids) for row in rows),
        }
    return Artifact.load(out, verify=False)


def _make_folder(fmt: str, merged: Path, out: Path) -> None:
    if fmt == "fp16":
        for file in merged.iterdir():
            if file.name != MANIFEST:
                link_or_copy(file, out / file.name)
        return
    from housecall.bitsandbytes_folder import write_folder

    write_folder(fmt, merged, out)
    copy_files(merged, out, [*TOKENIZER_FILES, "generation_config.json"])


def _make_gguf(fmt: str, merged: Artifact, importance: Artifact, draft: Draft) -> None:
    from safetensors.numpy import load_file

    from housecall.causal_lm import load_config
    from housecall.gguf.convert import convert, plan
    from housecall.gguf.mixture import uses_importance
    from housecall.weights import Weights

    config = load_config(merged.path)
    weights = Weights(merged.path, "np")
    plans = plan(weights, config, fmt)
    matrix = importance if uses_importance(fmt) else None
    with bar(fmt, len(plans)) as progress:
        convert(
            weights,
            config,
            plans,
            _fields(fmt, config, merged, matrix),
            draft.path / GGUF_FILE,
            importance=load_file(matrix.path / _MATRIX_FILE) if matrix else None,
            advance=progress.advance,
        )
    draft.metrics |= _describe(plans)
    draft.metrics["importance_matrix"] = matrix is not None


def _describe(plans: Sequence[Plan]) -> dict[str, Any]:
    """Which types there are, where a type could not be had, and what that means for the size."""
    matrices = sum(1 for plan in plans if len(plan.target.dims) > 1)
    fallbacks = [(p.wanted.name, p.target.kind.name) for p in plans if p.wanted is not None]
    described: dict[str, Any] = {
        "tensor_types": dict(Counter(plan.target.kind.name for plan in plans)),
        "fallbacks": dict(Counter(f"{wanted} -> {found}" for wanted, found in fallbacks)),
    }
    if fallbacks:
        described["why"] = (
            f"larger than its name says: {len(fallbacks)} of {matrices} tensors have rows that "
            "do not divide by 256, and take the next larger type, as in llama.cpp"
        )
    return described


def _fields(
    fmt: str, config: dict[str, Any], merged: Artifact, importance: Artifact | None
) -> dict[str, Any]:
    """All keys of the GGUF file: the model's, and ours that name what it was made from."""
    from housecall.gguf.llama import hyperparameters
    from housecall.gguf.mixture import file_type
    from housecall.gguf.vocabulary import gguf_vocabulary

    fields: dict[str, Any] = {
        "general.type": "model",
        "general.name": os.path.basename(os.path.dirname(merged.path.resolve())),
        **gguf_fields(merged),
        **hyperparameters(config),
        "general.file_type": int(file_type(fmt)),
        **gguf_vocabulary(merged.path, int(config["vocab_size"])),
        "general.quantization_version": 2,
        "housecall.format": fmt,
    }
    if importance is not None:
        fields["housecall.imatrix"] = importance.sha256
    return fields
