"""The decoder against transformers and PEFT: the same loss, the same gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from housecall.causal_lm import load_model
from housecall.chat_template import IGNORE, Encoded
from housecall.config import TrainConfig
from housecall.training.batches import Packed, micro_batches, pack, steps_an_epoch, steps_of
from housecall.training.decoder import Decoder

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

CONFIG = TrainConfig(quantization="none", lora_rank=4, lora_alpha=8)
CPU = torch.device("cpu")


def rows(lengths: tuple[int, ...], vocabulary: int = 280) -> list[Encoded]:
    """Random conversations of which about a half is learned."""
    random = torch.Generator().manual_seed(len(lengths))
    made = []
    for length in lengths:
        ids = torch.randint(3, vocabulary, (length,), generator=random).tolist()
        learned = torch.rand(length, generator=random) < 0.5
        made.append(
            Encoded(ids, [t if keep else IGNORE for t, keep in zip(ids, learned, strict=True)])
        )
    return made


def with_random_adapters(decoder: Decoder) -> Decoder:
    """Fresh adapters change nothing: their second matrix is zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for adapter in decoder.adapters.values():
            adapter.up.normal_(std=0.02)
    return decoder


def peft_model(folder: Path, decoder: Decoder, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=list(config.layers),
    )
    model = get_peft_model(load_model(folder, dtype="float32"), lora)
    with torch.no_grad():
        for name, adapter in decoder.adapters.items():
            module = model.base_model.model.get_submodule(name)
            module.lora_A["default"].weight.copy_(adapter.down)
            module.lora_B["default"].weight.copy_(adapter.up)
    return model


def reference(model: Any, data: list[Encoded]) -> torch.Tensor:
    """The summed loss, one conversation at a time: nothing to pad, nothing to mask."""
    total = torch.zeros(())
    for row in data:
        logits = model(torch.tensor([row.ids])).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(
            logits, torch.tensor(row.labels[1:]), ignore_index=IGNORE, reduction="sum"
        )
    return total


def family(folder: Path, tiny: Path, **changes: Any) -> Path:
    """The tiny Llama's configuration with other keys, and random weights for it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = json.loads((tiny / "config.json").read_text())
    raw.pop("architectures")
    config = AutoConfig.for_model(**{**raw, **changes, "dtype": "float32"})
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


QWEN2 = {"model_type": "qwen2", "use_sliding_window": False}
MISTRAL = {"model_type": "mistral", "sliding_window": None, "head_dim": 32}
UNTIED = {"tie_word_embeddings": False, "attention_bias": True}
ROPE = {"rope_theta": 5000.0, "rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    "changes",
    [{}, UNTIED, QWEN2, MISTRAL, {"rope_parameters": ROPE}, {"num_key_value_heads": 4}],
    ids=["llama", "untied-bias", "qwen2", "mistral", "rope-scaled", "no-groups"],
)
def test_loss_and_gradients_are_those_of_transformers_and_peft(
    changes: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    folder = family(tmp_path / "model", tiny_llama, **changes) if changes else tiny_llama
    data = rows((5, 70, 2, 33, 300))  # shorter and longer than what attention computes at once
    decoder = with_random_adapters(Decoder(folder, CONFIG, torch.float32, CPU))
    loss = decoder.loss(pack(data))
    loss.backward()
    model = peft_model(folder, decoder, CONFIG)
    expected = reference(model, data)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert float(decoder.token_losses(pack(data)).sum()) == pytest.approx(expected.item(), rel=1e-5)
    for name, adapter in decoder.adapters.items():
        module = model.base_model.model.get_submodule(name)
        for ours, theirs in ((adapter.down, "lora_A"), (adapter.up, "lora_B")):
            gradient = getattr(module, theirs)["default"].weight.grad
            assert ours.grad is not None
            error = (ours.grad - gradient).norm() / gradient.norm()
            assert error < 1e-4, f"{name} {theirs}"


def test_no_conversation_sees_another(tiny_llama: Path) -> None:
    decoder = with_random_adapters(Decoder(tiny_llama, CONFIG, torch.float32, CPU))
    one, two, other = rows((40, 30, 50))
    alone = decoder.token_losses(pack([two]))
    for neighbour in (one, other):
        beside = decoder.token_losses(pack([neighbour, two]))
        assert torch.allclose(beside[-len(alone) :], alone, atol=1e-5)


def gradients(decoder: Decoder, batches: list[Packed]) -> list[torch.Tensor]:
    decoder.training = True
    for batch in batches:
        decoder.loss(batch).backward()  # type: ignore[no-untyped-call]
    found = [p.grad.clone() for p in decoder.parameters() if p.grad is not None]
    for parameter in decoder.parameters():
        parameter.grad = None
    return found


def test_accumulation_and_checkpointing_change_memory_not_gradients(tiny_llama: Path) -> None:
    data = rows((64, 60, 90, 20))
    plain = Decoder(tiny_llama, CONFIG, torch.float32, CPU)
    expected = gradients(with_random_adapters(plain), micro_batches(data, 1000))
    assert len(micro_batches(data, 100)) > 1
    parts = gradients(plain, micro_batches(data, 100))
    thrifty = CONFIG.model_copy(update={"gradient_checkpointing": True})
    recomputed = gradients(
        with_random_adapters(Decoder(tiny_llama, thrifty, torch.float32, CPU)), [pack(data)]
    )
    for whole, part, again in zip(expected, parts, recomputed, strict=True):
        assert torch.allclose(whole, part, rtol=1e-4, atol=1e-5)
        assert torch.allclose(whole, again, rtol=1e-4, atol=1e-5)


def test_dropout_is_that_of_its_seed_and_off_in_evaluation(tiny_llama: Path) -> None:
    config = CONFIG.model_copy(update={"lora_dropout": 0.5, "gradient_checkpointing": True})
    decoder = with_random_adapters(Decoder(tiny_llama, config, torch.float32, CPU))
    batch = [pack(rows((64,)))]

    def seeded(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return gradients(decoder, batch)

    one, same, other = seeded(1), seeded(1), seeded(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    decoder.training = False
    assert torch.equal(decoder.token_losses(batch[0]), decoder.token_losses(batch[0]))


def test_4_bit_weights_are_those_of_bitsandbytes(tiny_llama: Path) -> None:
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    theirs = load_model(tiny_llama, dtype="float32", quantization_config=quantization)
    for module in theirs.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # a kernel that computes in bfloat16
    config = CONFIG.model_copy(update={"quantization": "nf4"})
    ours = Decoder(tiny_llama, config, torch.float32, CPU)
    data = rows((64, 30))
    with torch.no_grad():
        expected = float(reference(theirs, data))
    assert float(ours.token_losses(pack(data)).sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype, tiny_llama: Path) -> None:
    batch = pack(rows((64, 200)))
    exact = with_random_adapters(Decoder(tiny_llama, CONFIG, torch.float32, CPU))
    half = with_random_adapters(Decoder(tiny_llama, CONFIG, dtype, CPU))
    assert half.loss(batch).item() == pytest.approx(exact.loss(batch).item(), rel=5e-3)


def test_layers_without_an_adapter_pass_gradients_on(tiny_llama: Path) -> None:
    config = CONFIG.model_copy(update={"layers": ("q_proj", "v_proj")})
    decoder = with_random_adapters(Decoder(tiny_llama, config, torch.float32, CPU))
    model = peft_model(tiny_llama, decoder, config)
    data = rows((40,))
    decoder.loss(pack(data)).backward()  # type: ignore[no-untyped-call]
    reference(model, data).backward()  # type: ignore[no-untyped-call]
    assert len(decoder.adapters) == 2 * 2
    adapter = decoder.adapters["model.layers.0.self_attn.q_proj"]
    theirs = model.base_model.model.get_submodule("model.layers.0.self_attn.q_proj")
    assert adapter.up.grad is not None
    assert torch.allclose(adapter.up.grad, theirs.lora_B["default"].weight.grad, atol=1e-4)


@pytest.fixture
def many() -> list[Encoded]:
    lengths = torch.randint(5, 200, (60,), generator=torch.Generator().manual_seed(0))
    return rows(tuple(lengths.tolist()))


def test_an_epoch_has_every_row_once_and_full_steps(many: list[Encoded]) -> None:
    count = steps_an_epoch(many, 500, seed=3)
    plan = steps_of(many, 500, seed=3)
    first, second = ([next(plan) for _ in range(count)] for _ in range(2))
    key: Callable[[Encoded], list[int]] = lambda row: row.ids  # noqa: E731
    flat = [row for step in first for row in step]
    assert sorted(map(key, flat)) == sorted(map(key, many))
    assert all(sum(len(row.ids) for row in step) <= 500 for step in first)
    assert sum(len(row.ids) for row in many) / (500 * count) > 0.9
    assert list(map(key, flat)) != list(map(key, (row for step in second for row in step)))


def test_a_longer_row_is_a_step_of_its_own() -> None:
    assert [b.tokens for b in micro_batches(rows((700, 10, 10)), 100)] == [700, 20]
