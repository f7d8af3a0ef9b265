"""A GGUF file as base: what comes out of it is the model and the tokenizer that went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housecall.artifact import Artifact
from housecall.config import BaseConfig
from housecall.errors import ArtifactError, HousecallError
from housecall.gguf.files import GgufFile
from housecall.gguf.llama import (
    check_architecture,
    gguf_name,
    hf_config,
    hf_name,
    to_gguf_order,
    to_hf_order,
)
from housecall.gguf.spread import spread
from housecall.gguf.vocabulary import gguf_vocabulary, hf_tokenizer
from housecall.steps import fetch
from housecall.steps.base import read_json
from housecall.weights import Weights


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads(smollm2: Path, smollm2_gguf: Path) -> None:
    """Every weight is equal in float16 but for its factor, and the logits are, nearly."""
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    config = read_json(smollm2 / "config.json")
    for name in set(weights) - {"lm_head.weight"}:  # which is the embedding
        moved = spread(gguf_name(name), expected[name].numpy(), config)
        assert np.array_equal(weights[name].numpy(), moved.astype(np.float16).astype(np.float32))
    for key in ("rope_parameters", "num_key_value_heads", "head_dim", "vocab_size"):
        assert getattr(ours.config, key) == getattr(theirs.config, key)
    assert ours.config.rms_norm_eps == pytest.approx(theirs.config.rms_norm_eps, rel=1e-6)
    assert (ours.config.bos_token_id, ours.config.eos_token_id) == (1, 2)
    ids = torch.tensor([[1, 9690, 198, 2683, 359, 253, 5356, 5646, 2, 198, 1, 4093, 198]])
    with torch.no_grad():
        difference = (ours(ids).logits - theirs(ids).logits).abs().max()
    assert difference < 0.1


def test_there_and_back(tiny_llama: Path, tmp_path: Path, convert: Any) -> None:
    """Folder, GGUF, folder: the same tensors, and a tokenizer that gives the same ids."""
    from tokenizers import Tokenizer

    file = GgufFile(convert(tiny_llama, tmp_path / "x.gguf"))
    config = read_json(tiny_llama / "config.json")
    found = hf_config(file.fields, file.names)
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "vocab_size", "rms_norm_eps"):
        assert found[key] == config[key]
    weights = Weights(tiny_llama, "np")
    assert sorted(map(hf_name, file.names)) == sorted(weights.names)
    for name in file.names:
        back = to_hf_order(name, found)(file.tensor(name))
        assert np.array_equal(back, weights[hf_name(name)].astype(np.float32))
    tokenizer, settings = hf_tokenizer(file.fields)
    ours = Tokenizer.from_str(json.dumps(tokenizer))
    theirs = Tokenizer.from_file(str(tiny_llama / "tokenizer.json"))
    text = "the doctor: take 2 x 50 mg<|im_end|> rest\n\n  water \u00e9\U0001f600"
    assert ours.encode(text).ids == theirs.encode(text).ids
    before = read_json(tiny_llama / "tokenizer_config.json")
    assert settings["eos_token"] == before["eos_token"]
    assert settings["chat_template"] == before["chat_template"]


@pytest.mark.parametrize("name", ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"])
def test_rotary_weights_change_places(name: str) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    name = f"blk.3.{name}"
    weights = np.arange(16 * 3).reshape(16, 3) if "weight" in name else np.arange(16)
    moved = to_gguf_order(name, config)(weights)
    assert not np.array_equal(moved, weights)
    assert np.array_equal(to_hf_order(name, config)(moved), weights)


def test_names_of_tensors() -> None:
    assert gguf_name("model.layers.12.mlp.down_proj.weight") == "blk.12.ffn_down.weight"
    assert hf_name("blk.12.ffn_down.weight") == "model.layers.12.mlp.down_proj.weight"
    assert gguf_name("model.layers.3.self_attn.q_proj.bias") == "blk.3.attn_q.bias"
    assert hf_name("blk.3.attn_q.bias") == "model.layers.3.self_attn.q_proj.bias"
    with pytest.raises(ArtifactError, match="not one of a Llama"):
        gguf_name("model.layers.0.mlp.experts.weight")
    with pytest.raises(ArtifactError, match=r"blk\.0\.ssm_a\.weight: not one of a Llama"):
        hf_name("blk.0.ssm_a.weight")


FIELDS = {
    "general.architecture": "llama",
    "llama.attention.head_count": 4,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["a"],
    "tokenizer.ggml.token_type": [1],
    "tokenizer.ggml.merges": [],
}


def read_fields(fields: dict[str, Any]) -> None:
    hf_config(fields, [])
    hf_tokenizer(fields)


def test_defaults_of_the_format() -> None:
    config = hf_config(FIELDS, [])
    assert config["num_key_value_heads"] == 4
    assert config["head_dim"] == 16
    assert config["rope_theta"] == 10_000.0
    assert config["tie_word_embeddings"]
    check_architecture(config, "here")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"general.architecture": "qwen2"}, "architecture 'qwen2' is not supported"),
        ({"llama.block_count": None}, "key 'llama.block_count' is missing"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn' is not supported"),
        ({"tokenizer.ggml.merges": None}, "key tokenizer.ggml.merges is missing"),
        ({"tokenizer.ggml.pre": "viking"}, r"tokenizer \(gpt2, viking\) can't be read"),
        ({"tokenizer.ggml.model": "llama"}, r"tokenizer \(llama, smollm\) can't be read"),
    ],
)
def test_what_can_not_be_read_is_named(changed: dict[str, Any], message: str) -> None:
    fields = {k: v for k, v in {**FIELDS, **changed}.items() if v is not None}
    with pytest.raises(ArtifactError, match=message):
        read_fields(fields)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, "Qwen3ForCausalLM is not supported"),
        ({"architectures": None}, "architecture none is not supported"),
        ({"architectures": ["GemmaForCausalLM"]}, r"convert_hf_to_gguf.py .*serve FILE.gguf"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not supported"),
        ({"rope_parameters": {"rope_type": "su"}}, "rope scaling 'su' is not supported"),
    ],
)
def test_what_can_not_be_converted_is_named(changed: dict[str, Any], message: str) -> None:
    config = {"architectures": ["LlamaForCausalLM"], **changed}
    with pytest.raises(ArtifactError, match=message):
        check_architecture(config, "here")


@pytest.mark.parametrize(
    "changed",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": {"type": "NFC"}},
        {"model": {"type": "Unigram", "vocab": []}},
    ],
)
def test_tokenizers_of_another_kind_are_refused(
    tiny_llama: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    tokenizer = {**read_json(tiny_llama / "tokenizer.json"), **changed}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"convert_hf_to_gguf\.py"):
        gguf_vocabulary(tmp_path, 400)


def hostile_counts(raw: bytes) -> bytes:
    return raw[:8] + b"\xff" * 8 + raw[16:]


def hostile_template(raw: bytes) -> bytes:
    """The same length, so that the rest of the file stays where it is."""
    start = raw.index(b"{% for message in messages %}")
    evil = b"{{ ''.__class__.__mro__ }}   "
    return raw[:start] + evil + raw[start + len(evil) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (hostile_counts, r"bad\.gguf: not a readable GGUF file"),
        (hostile_template, "chat template is not safe to run|does not compile"),
        (lambda raw: raw[: len(raw) // 2], r"bad\.gguf: not a readable GGUF file"),
    ],
)
def test_a_hostile_base_is_refused_and_the_one_before_stays(
    tiny_llama: Path, tmp_path: Path, convert: Any, change: Any, message: str
) -> None:
    good = convert(tiny_llama, tmp_path / "good.gguf")
    before = fetch.run(BaseConfig(source=str(good)), tmp_path / "base")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(change(good.read_bytes()))
    with pytest.raises(HousecallError, match=message) as error:
        fetch.run(BaseConfig(source=str(bad)), tmp_path / "base")
    assert "\n" not in str(error.value)
    assert Artifact.load(tmp_path / "base").sha256 == before.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.gguf", "base", "good.gguf"]
