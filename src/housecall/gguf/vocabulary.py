"""Tokenizers between Hugging Face files and GGUF keys.

Byte-pair vocabularies come from ``tokenizer.json``, SentencePiece ones from ``tokenizer.model``
(the JSON of those has lost the scores that llama.cpp merges by).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import SpecialVocab, TokenType
from sentencepiece import SentencePieceProcessor

from housecall.errors import ArtifactError

# It warns of what a template for pairs of texts holds, which no causal model uses.
logging.getLogger("gguf.vocab").setLevel(logging.ERROR)

_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# llama.cpp's name of a way to cut text before byte-pair merging: how tokenizer.json spells it.
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTES]},
    "gpt-2": _BYTES,
}
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_NEEDED = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
_LONG = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # as GGUF spells them


def gguf_vocabulary(folder: Path, vocab_size: int) -> dict[str, Any]:
    """The ``tokenizer.*`` keys for the tokenizer in a Hugging Face folder.

    Raises ArtifactError for a tokenizer that can't be converted here.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if (folder / "tokenizer.model").exists():
        keys = _sentencepiece(folder, tokenizer, vocab_size)
    else:
        keys = _byte_pair(folder, tokenizer, vocab_size)
    special = SpecialVocab(folder, n_vocab=vocab_size)  # the official converter's own reading
    for name, index in special.special_token_ids.items():
        keys[f"tokenizer.ggml.{_LONG.get(name, name)}_token_id"] = index
    for name, added in special.add_special_token.items():
        keys[f"tokenizer.ggml.add_{name}_token"] = added
    template = chat_template(folder)
    if template is not None:
        keys["tokenizer.chat_template"] = template
    return keys


def chat_template(folder: Path) -> str | None:
    """The chat template of a Hugging Face folder, from either place it may be in."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None


def _byte_pair(folder: Path, tokenizer: Mapping[str, Any], size: int) -> dict[str, Any]:
    model = tokenizer["model"]
    pre = next(
        (name for name, spelt in _PRE_TOKENIZERS.items() if spelt == tokenizer["pre_tokenizer"]),
        None,
    )
    if model["type"] != "BPE" or pre is None or tokenizer["normalizer"] is not None:
        raise ArtifactError(
            f"{folder / 'tokenizer.json'}: this kind of tokenizer can't be converted here: use "
            "llama.cpp's convert_hf_to_gguf.py and pass the file to  housecall serve"
        )
    tokens, types = _slots(size)
    for text, index in model["vocab"].items():
        tokens[index], types[index] = text, TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        if token["id"] < size:
            tokens[token["id"]], types[token["id"]] = _added(token)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(t) for t in types],
        "tokenizer.ggml.merges": [
            m if isinstance(m, str) else " ".join(m) for m in model["merges"]
        ],
    }


def _sentencepiece(folder: Path, tokenizer: Mapping[str, Any], size: int) -> dict[str, Any]:
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens, types = _slots(size)
    scores = [-10_000.0] * size
    for index in range(min(model.vocab_size(), size)):
        tokens[index], scores[index] = model.id_to_piece(index), model.get_score(index)
        types[index] = _piece_type(model, index)
    listed = settings.get("added_tokens_decoder", {})
    added = {t["id"]: t for t in tokenizer["added_tokens"] if t["id"] >= model.vocab_size()}
    for index, token in {**added, **{int(i): t for i, t in listed.items()}}.items():
        if index < size:  # some tokenizers have a padding token that the model has no row for
            tokens[index], types[index] = _added(token)
            scores[index] = -1000.0
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [int(t) for t in types],
    }
    if settings.get("add_prefix_space") is not None:
        keys["tokenizer.ggml.add_space_prefix"] = settings["add_prefix_space"]
    return keys


def _piece_type(model: Any, index: int) -> TokenType:
    asked = {
        TokenType.UNKNOWN: model.is_unknown,
        TokenType.CONTROL: model.is_control,
        TokenType.UNUSED: model.is_unused,
        TokenType.BYTE: model.is_byte,
    }
    return next((kind for kind, holds in asked.items() if holds(index)), TokenType.NORMAL)


def _slots(size: int) -> tuple[list[str], list[TokenType]]:
    """A model may have more rows than its tokenizer has tokens: the rest are unused."""
    return [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size


def _added(token: Mapping[str, Any]) -> tuple[str, TokenType]:
    """Text and type of an added token.

    One that looks like a control token is one, even where its author forgot to say so: llama.cpp
    finds all others in any text, a user's too.
    """
    text: str = token["content"]
    if token["special"] or any(text.startswith(a) and text.endswith(b) for a, b in _CONTROL_LOOK):
        return text, TokenType.CONTROL
    return text.replace("▁", " "), TokenType.USER_DEFINED


# Source: does_token_look_special of the official converter.
_CONTROL_LOOK = (
    ("<|", "|>"),
    ("<\uff5c", "\uff5c>"),
    ("<unused", ">"),
    ("<pad>", ""),
    ("<mask>", ""),
)


def hf_tokenizer(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``tokenizer.json`` and ``tokenizer_config.json`` from the keys of a GGUF file.

    Raises ArtifactError for a vocabulary that can't be read here.
    """
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise ArtifactError(
            f"its tokenizer ({kind}, {pre}) can't be read here: "
            "give the model's Hugging Face folder as base.source instead"
        )
    for key in _NEEDED:
        if key not in fields:
            raise ArtifactError(f"the key {key} is missing")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    special = [
        {"id": i, "content": tokens[i], "special": kind == TokenType.CONTROL, **_PLAIN}
        for i, kind in enumerate(fields["tokenizer.ggml.token_type"])
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    bytes_ = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        "clean_up_tokenization_spaces": False,
    }
    for key, name in _SPECIAL.items():
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            settings[name] = tokens[index]
    if "tokenizer.chat_template" in fields:
        settings["chat_template"] = fields["tokenizer.chat_template"]
    return tokenizer, settings


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
