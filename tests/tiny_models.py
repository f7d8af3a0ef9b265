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
_WORDS = "the fever headache cough water doctor please help rest take pain days user assistant"


def make_tiny_llama(folder: Path) -> Path:
    """Two layers, hidden 256, four heads on two, and more rows than the tokenizer has tokens."""
    tokens = _write_byte_level(folder)
    _write_model(folder, vocab_size=tokens + 13, hidden=256, intermediate=512, bos=1, eos=2)
    return folder


def make_tiny_sentencepiece(folder: Path) -> Path:
    """Two layers, hidden 64, and the 32,000 pieces of a tokenizer of the Llama 2 family."""
    write_sentencepiece(folder)
    _write_model(folder, vocab_size=32_000, hidden=64, intermediate=128, bos=1, eos=2)
    return folder


def _write_model(
    folder: Path, *, vocab_size: int, hidden: int, intermediate: int, bos: int, eos: int
) -> None:
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        bos_token_id=bos,
        eos_token_id=eos,
        dtype="float16",
    )
    model = LlamaForCausalLM(config).half()
    random = np.random.RandomState(7)  # its stream is frozen, so the weights are too
    with torch.no_grad():
        for name, weights in sorted(model.named_parameters()):
            values = 1 + 0.1 * random.randn(*weights.shape)
            if "norm" not in name:
                values = 0.05 * random.randn(*weights.shape)
            weights.copy_(torch.from_numpy(values))
    model.save_pretrained(folder)


def _write_byte_level(folder: Path) -> int:
    """SmolLM's way to cut text, with whole words for a few; the number of tokens."""
    from tokenizers import pre_tokenizers

    tokens = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in [*_WORDS.split(), *(f"Ġ{word}" for word in _WORDS.split())]:
        for end in range(1, len(word)):
            merges.setdefault((word[:end], word[end]))
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    digits = {"type": "Digits", "individual_digits": True}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    _write_tokenizer(
        folder,
        tokens,
        merges,
        added=CONTROL,
        normalizer=None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, cut]},
        decoder=cut,
        unk_token=None,
        byte_fallback=False,
        fuse_unk=False,
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
        "post_processor": None,
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
