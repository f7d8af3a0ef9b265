"""Random models small enough to be made anew in each test session, the same ones every time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# As TinyLlama-1.1B-Chat-v1.0 has it.
TINYLLAMA = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
    "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS_OF_OURS = (
    "the fever headache cough water doctor please help rest take pain days user assistant"
)


# How the tokenizers of Qwen2 and Llama 3 cut text, as their own tokenizer.json files spell it.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_CUT = _WORDS + r"\p{N}" + _REST
LLAMA3_CUT = _WORDS + r"\p{N}{1,3}" + _REST


def make_tiny_llama(folder: Path) -> Path:
    """Two layers, hidden 256, four heads on two, and more rows than the tokenizer has tokens."""
    tokens = _write_byte_level(folder)
    _write_model(folder, vocab_size=tokens + 13, hidden=256, intermediate=512)
    return folder


def make_tiny_sentencepiece(folder: Path) -> Path:
    """Two layers, hidden 64, and the 32,000 pieces of a tokenizer of the Llama 2 family."""
    write_sentencepiece(folder)
    _write_model(folder, vocab_size=32_000, hidden=64, intermediate=128)
    return folder


def make_tiny_qwen2(folder: Path) -> Path:
    """Biases, tied embeddings, NFC text cut as by Qwen2, and a window stretched by YaRN."""
    tokens = _write_byte_level(folder, *_regex(QWEN2_CUT), normalizer={"type": "NFC"})
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    _write_model(
        folder,
        "Qwen2",
        vocab_size=tokens + 5,
        hidden=64,
        intermediate=128,
        tie_word_embeddings=True,
        rope_scaling={**scaling, "beta_fast": 32.0, "attention_factor": 1.1},
    )
    return folder


def make_tiny_llama3(folder: Path) -> Path:
    """Tied embeddings, text cut as by Llama 3, words before merges, a BOS, its rotary scaling."""
    tokens = _write_byte_level(folder, *_regex(LLAMA3_CUT), ignore_merges=True, bos="<|im_start|>")
    scaling = {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 128}
    _write_model(
        folder,
        vocab_size=tokens,
        hidden=64,
        intermediate=128,
        tie_word_embeddings=True,
        rope_theta=500_000.0,
        rope_scaling={**scaling, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    )
    return folder


def make_tiny_mistral(folder: Path) -> Path:
    """SentencePiece, a sliding window, and positions stretched linearly."""
    write_sentencepiece(folder)
    _write_model(
        folder,
        "Mistral",
        vocab_size=32_000,
        hidden=64,
        intermediate=128,
        sliding_window=256,
        rope_scaling={"rope_type": "linear", "factor": 2.0},
    )
    return folder


def make_tiny_biased(folder: Path) -> Path:
    """A Llama with biases in its attention, and positions stretched as far as a text needs."""
    tokens = _write_byte_level(folder)
    _write_model(
        folder,
        vocab_size=tokens,
        hidden=64,
        intermediate=128,
        attention_bias=True,
        rope_scaling={"rope_type": "dynamic", "factor": 2.0},
    )
    return folder


def _write_model(
    folder: Path, family: str = "Llama", *, hidden: int, intermediate: int, **options: Any
) -> None:
    import numpy as np
    import torch
    import transformers
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = getattr(transformers, f"{family}Config")(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float16",
        **{"rope_theta": 10_000.0, **options},
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).half()
    random = np.random.RandomState(7)  # its stream is frozen, so the weights are too
    with torch.no_grad():
        for name, weights in sorted(model.named_parameters()):
            values = 1 + 0.1 * random.randn(*weights.shape)
            if "norm" not in name:
                values = 0.05 * random.randn(*weights.shape)
            weights.copy_(torch.from_numpy(values))
    model.save_pretrained(folder)


_DIGITS = {"type": "Digits", "individual_digits": True}
_CUT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _regex(pattern: str) -> tuple[dict[str, Any], dict[str, Any]]:
    split = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Split", **split}, {**_CUT, "trim_offsets": False, "use_regex": False}


def _write_byte_level(
    folder: Path,
    *cut: dict[str, Any],
    normalizer: Any = None,
    ignore_merges: bool = False,
    bos: str | None = None,
) -> int:
    """SmolLM's way to cut text or another, whole words for a few; the number of tokens."""
    from tokenizers import pre_tokenizers

    tokens = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in [*_WORDS_OF_OURS.split(), *(f"Ġ{word}" for word in _WORDS_OF_OURS.split())]:
        for end in range(1, len(word)):
            merges.setdefault((word[:end], word[end]))
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    _write_tokenizer(
        folder,
        tokens,
        merges,
        added=CONTROL,
        normalizer=normalizer,
        pre_tokenizer={"type": "Sequence", "pretokenizers": list(cut or (_DIGITS, _CUT))},
        post_processor=_begins_with(bos, tokens) if bos else None,
        decoder=_CUT,
        unk_token=None,
        byte_fallback=False,
        fuse_unk=False,
        ignore_merges=ignore_merges,
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHATML,
    }
    _write_json(folder / "tokenizer_config.json", settings)
    return len(tokens)


def _begins_with(token: str, tokens: list[str]) -> dict[str, Any]:
    """A post-processor that puts a token before every text."""
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    known = {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]}}
    single, pair = [first, a], [first, a, {"SpecialToken": {"id": token, "type_id": 1}}, b]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


def write_sentencepiece(folder: Path) -> None:
    """``tokenizer.model``, and the ``tokenizer.json`` that TinyLlama's repository has beside it."""
    from sentencepiece import SentencePieceProcessor
    from transformers.convert_slow_tokenizer import generate_merges

    model = resources.files("mistral_common") / "data" / "tokenizer.model.v1"
    (folder / "tokenizer.model").write_bytes(model.read_bytes())
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokens = [pieces.id_to_piece(i) for i in range(pieces.vocab_size())]
    vocabulary = {text: i for i, text in enumerate(tokens)}
    scores = {text: pieces.get_score(i) for i, text in enumerate(tokens)}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    _write_tokenizer(
        folder,
        tokens,
        generate_merges(vocabulary, scores),
        added=("<unk>", "<s>", "</s>"),
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace],
        },
        pre_tokenizer=None,
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": 2048,
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": TINYLLAMA,
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _write_tokenizer(
    folder: Path,
    tokens: list[str],
    merges: Iterable[tuple[str, str]],
    *,
    added: tuple[str, ...],
    normalizer: Any,
    pre_tokenizer: Any,
    decoder: Any,
    post_processor: Any = None,
    **model: Any,
) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": tokens.index(text), "content": text, "special": True, **flags} for text in added
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
            **model,
        },
    }
    _write_json(folder / "tokenizer.json", tokenizer)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
