"""The gate proves itself: eight faults of real exports, each refused and each named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broken_gguf import rewrite_gguf
from housecall.artifact import Artifact, create, write_json
from housecall.checks.parity import Parity
from housecall.config import ParityConfig
from housecall.errors import GateRefused, ParityFailed
from housecall.gguf.llama import to_hf_order
from housecall.lineage import GGUF_FILE
from housecall.pipeline import Run
from housecall.steps import gate, merge
from housecall.steps.base import copy_files, link_or_copy, read_json
from tiny_models import TINYLLAMA

PARITY = ParityConfig(answers=2, answer_tokens=16)


def refused_by_parity(run: Run, tmp_path: Path, **changes: Any) -> str:
    """The message with which parity refuses ``gguf-f16`` with these changes."""
    original = run.path / "variants" / "gguf-f16" / GGUF_FILE
    wrong = rewrite_gguf(original, tmp_path / "wrong.gguf", **changes)
    parity = Parity(PARITY, run.path / "merged")
    kept = tmp_path / "refused.json"
    with pytest.raises(ParityFailed) as caught:
        parity.require(wrong, "gguf-f16", tmp_path / "parity.json", kept)
    assert not (tmp_path / "parity.json").exists()
    assert str(caught.value).startswith("gguf-f16 is not the model that was merged: ")
    assert "\n" not in str(caught.value)
    assert read_json(kept)["failures"]
    return str(caught.value)


def greedy_failures(kept: Path) -> list[str]:
    return [f for f in read_json(kept)["failures"] if f.startswith("greedy answer")]


def test_the_file_without_a_fault_passes(whole_run: Run, tmp_path: Path) -> None:
    original = whole_run.path / "variants" / "gguf-f16" / GGUF_FILE
    same = rewrite_gguf(original, tmp_path / "same.gguf")
    found = Parity(PARITY, whole_run.path / "merged").examine(same, exact=True)
    assert found["failures"] == []
    assert found["tokens"]["conversations"] >= 60
    assert found["greedy"]["answers"] == 2


def test_a_wrong_rope_base(whole_run: Run, tmp_path: Path) -> None:
    message = refused_by_parity(whole_run, tmp_path, fields={"llama.rope.freq_base": 500.0})
    assert "llama.rope.freq_base is 500 and the model's is 10000" in message
    assert "(RoPE)" in message
    assert greedy_failures(tmp_path / "refused.json")  # and the engine's answers show it too


def test_unpermuted_key_weights(whole_run: Run, tmp_path: Path) -> None:
    config = read_json(whole_run.path / "merged" / "config.json")
    name = "blk.0.attn_k.weight"
    changes = {name: to_hf_order(name, config)}
    message = refused_by_parity(whole_run, tmp_path, tensors=changes)
    assert "greedy answer 1 differs at token" in message
    assert f"{name} is" in message
    assert "unpermuted" in message


def test_a_lost_end_of_turn_token(whole_run: Run, tmp_path: Path) -> None:
    message = refused_by_parity(whole_run, tmp_path, fields={"tokenizer.ggml.eos_token_id": 5})
    assert "tokenizer.ggml.eos_token_id is 5 and the model's is 2" in message
    assert "the end-of-turn token is lost" in message


def test_a_swapped_chat_template(whole_run: Run, tmp_path: Path) -> None:
    message = refused_by_parity(whole_run, tmp_path, fields={"tokenizer.chat_template": TINYLLAMA})
    assert "the chat template is not the model's" in message
    found = read_json(tmp_path / "refused.json")["failures"]
    assert any("token ids differ" in failure for failure in found)


def test_shuffled_rows_of_the_vocabulary(whole_run: Run, tmp_path: Path) -> None:
    def shuffle(weights: Any) -> Any:
        return weights[np.random.default_rng(1).permutation(len(weights))]

    message = refused_by_parity(whole_run, tmp_path, tensors={"token_embd.weight": shuffle})
    assert "greedy answer 1 differs" in message
    assert "token_embd.weight" in message
    assert "in other places (shuffled)" in message


def judged(run: Run, tmp_path: Path, tensors: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """What the gate says of ``gguf-q8_0`` with these tensors changed, in a copy of the run."""
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    old = Artifact.load(copy / "variants" / "gguf-q8_0")
    parents = old.parents()
    with create(old.path, "variant", config=dict(old.manifest["config"]), parents=parents) as draft:
        rewrite_gguf(old.path / GGUF_FILE, draft.path / GGUF_FILE, tensors=tensors)
        draft.metrics.update(old.metrics)
    variants = [Artifact.load(copy / "variants" / f) for f in ("fp16", "gguf-q8_0")]
    report = gate.run(run.recipe.gate, variants, Artifact.load(copy / "dataset"), copy / "gate")
    verdict: dict[str, Any] = report.metrics["variants"][1]
    return verdict


def test_one_noisy_layer(whole_run: Run, tmp_path: Path) -> None:
    def noisy(weights: Any) -> Any:
        noise = np.random.default_rng(2).standard_normal(weights.shape)
        return (weights + 2 * weights.std() * noise).astype(np.float32)

    verdict = judged(whole_run, tmp_path, {"blk.1.ffn_down.weight": noisy})
    assert not verdict["passed"]
    assert verdict["failed"][0].startswith("KL ")
    assert verdict["causes"][0].startswith("blk.1.ffn_down.weight is ")
    assert "noisy" in verdict["causes"][0]


def test_a_wrong_quantisation_scale(whole_run: Run, tmp_path: Path) -> None:
    verdict = judged(whole_run, tmp_path, {"blk.0.attn_output.weight": lambda w: w * 8})
    assert not verdict["passed"]
    assert verdict["causes"][0].startswith("blk.0.attn_output.weight is ")
    assert "8.00 times FP16's (a wrong quantisation scale)" in verdict["causes"][0]


def test_an_adapter_of_another_run_merged_in(whole_run: Run, tmp_path: Path) -> None:
    """The manifests are in order, and the weights tell another story."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "run"
    shutil.copytree(whole_run.path, copy)
    other = tmp_path / "other"
    shutil.copytree(copy / "adapter", other)
    weights = load_file(other / "adapter_model.safetensors")
    save_file({n: w.flip(0).contiguous() for n, w in weights.items()}, other / "new.safetensors")
    (other / "new.safetensors").replace(other / "adapter_model.safetensors")

    old = Artifact.load(copy / "merged")
    with create(old.path, "merged", config={}, parents=old.parents()) as draft:
        copy_files(old.path, draft.path, [f["path"] for f in old.manifest["files"]])
        merge.merge_weights(copy / "base", other, draft.path)
    merged = Artifact.load(copy / "merged")
    fp16 = copy / "variants" / "fp16"
    with create(fp16, "variant", config={}, parents=[merged]) as draft:
        for entry in merged.manifest["files"]:
            link_or_copy(merged.path / entry["path"], draft.path / entry["path"])
    with pytest.raises(GateRefused, match=r"an adapter of another run was merged: run  housecall"):
        gate.run(
            whole_run.recipe.gate,
            [Artifact.load(fp16)],
            Artifact.load(copy / "dataset"),
            tmp_path / "gate",
        )


def test_a_replaced_adapter_is_named_by_its_hash(whole_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole_run.path, copy)
    manifest = read_json(copy / "adapter" / "manifest.json")
    write_json(copy / "adapter" / "manifest.json", {**manifest, "seed": 99})
    variants = [Artifact.load(copy / "variants" / "fp16")]
    with pytest.raises(Exception, match=r"adapter.*made from another one .*expected sha256"):
        gate.run(whole_run.recipe.gate, variants, Artifact.load(copy / "dataset"), copy / "gate")
