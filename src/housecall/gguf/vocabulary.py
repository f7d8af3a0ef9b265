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
from housecall.gguf.llama import architecture

# It warns of what a template for pairs of texts holds, which no causal model uses.
logging.getLogger("gguf.vocab").setLevel(logging.ERROR)

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(regex: str) -> dict[str, Any]:
    pattern = {"Regex": regex}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _bytes(*, use_regex: bool) -> dict[str, Any]:
    prefix = {"add_prefix_space": False, "trim_offsets": True}
    return {"type": "ByteLevel", **prefix, "use_regex": use_regex}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


# llama.cpp's name of a way to cut text before byte-pair merging: how tokenizer.json spells it.
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, _bytes(use_regex=True)),
    "gpt-2": _bytes(use_regex=True),
    "llama-bpe": _sequence(_split(_WORDS + "{1,3}" + _REST), _bytes(use_regex=False)),
    "qwen2": _sequence(_split(_WORDS + _REST), _bytes(use_regex=False)),
}
# Those that take a word which is a token as that token, whatever the merges say.
_IGNORE_MERGES = ("llama-bpe",)
# Those that llama.cpp knows to be used with text in this form, which it does not make itself.
_NORMALIZERS = {"qwen2": ({"type": "NFC"},)}
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_NEEDED = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
_LONG = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # as GGUF spells them


def gguf_vocabulary(folder: Path, vocab_size: int) -> dict[str, Any]:
    """The ``tokenizer.*`` keys for the tokenizer in a Hugging Face folder.

    Raises ArtifactError for a tokenizer that can't be converted here.
    """
    tokenizer = _read(folder / "tokenizer.json")
    pieces = (folder / "tokenizer.model").exists()
    make = _sentencepiece if pieces else _byte_pair
    keys = make(folder, tokenizer, vocab_size)
    # The official converter's own reading.
    special = SpecialVocab(folder, load_merges=not pieces, n_vocab=vocab_size)
    if not pieces:
        keys["tokenizer.ggml.merges"] = special.merges
    for name, index in special.special_token_ids.items():
        keys[f"tokenizer.ggml.{_LONG.get(name, name)}_token_id"] = index
    for name, added in special.add_special_token.items():
        keys[f"tokenizer.ggml.add_{name}_token"] = added
    if _is_llama(folder):
        prefix = _read(folder / "tokenizer_config.json").get("add_prefix_space")
        if prefix is not None:
            keys["tokenizer.ggml.add_space_prefix"] = prefix
        if vocab_size == _GRANITE_SIZE:
            keys["tokenizer.ggml.add_bos_token"] = False
    template = chat_template(folder)
    if template is not None:
        keys["tokenizer.chat_template"] = template
    return keys


# The official converter knows Granite's small models, and so SmolLM, by the size alone.
_GRANITE_SIZE = 49_152


def _is_llama(folder: Path) -> bool:
    return architecture(_read(folder / "config.json")) == "llama"


def _read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return value


def chat_template(folder: Path) -> str | None:
    """The chat template of a Hugging Face folder, from either place it may be in."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = _read(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def _byte_pair(folder: Path, tokenizer: Mapping[str, Any], size: int) -> dict[str, Any]:
    model = tokenizer["model"]
    pre = _pre_tokenizer(tokenizer)
    if model["type"] != "BPE" or pre is None:
        raise ArtifactError(
            f"{folder / 'tokenizer.json'}: not a kind of tokenizer that can be converted here "
            f"(BPE cut as by {', '.join(_PRE_TOKENIZERS)}, or SentencePiece with tokenizer.model): "
            "use llama.cpp's convert_hf_to_gguf.py and run  housecall serve FILE.gguf"
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
    }


def _pre_tokenizer(tokenizer: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for what a tokenizer does before merging, if it does the very same."""
    ways = {name: _meaning(spelt) for name, spelt in _PRE_TOKENIZERS.items()}
    found = _meaning(tokenizer["pre_tokenizer"])
    name = next((name for name, way in ways.items() if way == found), None)
    if name is None or tokenizer["normalizer"] not in (None, *_NORMALIZERS.get(name, ())):
        return None
    ignores = bool(tokenizer["model"].get("ignore_merges"))
    return name if ignores == (name in _IGNORE_MERGES) else None


def _meaning(spelt: Any) -> Any:
    """A pre-tokenizer without what does not change where it cuts."""
    if not isinstance(spelt, dict):
        return spelt
    if spelt.get("type") == "Sequence":
        return [_meaning(step) for step in spelt["pretokenizers"]]
    return [{key: value for key, value in spelt.items() if key != "trim_offsets"}]


def _sentencepiece(folder: Path, tokenizer: Mapping[str, Any], size: int) -> dict[str, Any]:
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    settings = _read(folder / "tokenizer_config.json")
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
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [int(t) for t in types],
    }


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
            "ignore_merges": pre in _IGNORE_MERGES,
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
