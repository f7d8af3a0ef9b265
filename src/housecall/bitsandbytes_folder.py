"""``int8`` and ``int4``: folders that plain transformers loads with bitsandbytes.

Made tensor by tensor with bitsandbytes' functions: the model is never in memory. The tensors are
those of ``save_pretrained`` after loading with a ``BitsAndBytesConfig`` (a test compares them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from housecall.causal_lm import compute_dtype, pick_device, quiet_libraries
from housecall.progress import bar
from housecall.weights import TensorSpec, Weights, write_weights

_BLOCK, _NESTED_BLOCK = 64, 256  # weights that share a scale, and scales that share one
_ROW_FORMAT = 0  # bitsandbytes' number for int8 weights that lie row by row
_STATE = "quant_state.bitsandbytes__nf4"
# How a layer was quantised is JSON whose length depends on the weights. The header of a file
# stands before them, so blanks at the end of that JSON make its length known beforehand.
_STATE_BYTES = 256


def write_folder(fmt: str, source: Path, out: Path) -> None:
    """Quantise the linear layers of ``source``; ``fmt`` is ``int8`` or ``int4`` (NF4).

    Writes weights and config.json; the embedding, the norms and the output matrix stay float16.
    """
    quiet_libraries()
    weights = Weights(source)
    device = pick_device()
    quantise, describe = (_int8, _int8_specs) if fmt == "int8" else (_nf4, _nf4_specs)
    specs: dict[str, TensorSpec] = {}
    for name in weights.names:
        shape = weights.shape(name)
        specs |= describe(name, shape) if _is_linear(name, shape) else _half(name, shape)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        with bar(fmt, len(weights)) as progress:
            for name in weights.names:
                tensor = weights[name].to(torch.float16)
                if _is_linear(name, weights.shape(name)):
                    yield from quantise(name, tensor.to(device)).items()
                else:
                    yield name, tensor
                progress.advance()

    write_weights(out / "model.safetensors", specs, tensors())
    _write_config(fmt, source, out, device)


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and ".layers." in name


def _half(name: str, shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    return {name: TensorSpec("F16", shape)}


def _int8(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    from bitsandbytes.functional import int8_vectorwise_quant

    packed, scales, _ = int8_vectorwise_quant(tensor)
    return {
        name: packed,
        _scales_of(name): scales,
        f"{name}_format": torch.tensor(_ROW_FORMAT, dtype=torch.uint8),
    }


def _int8_specs(name: str, shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec("I8", shape),
        _scales_of(name): TensorSpec("F32", shape[:1]),
        f"{name}_format": TensorSpec("U8", ()),
    }


def _scales_of(name: str) -> str:
    return f"{name.removesuffix('weight')}SCB"


def _nf4(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        tensor, blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
    )
    parts = state.as_dict(packed=True)
    described = bytes(parts[_STATE].tolist()).ljust(_STATE_BYTES)
    parts[_STATE] = torch.tensor(list(described), dtype=torch.uint8)
    return {name: packed, **{f"{name}.{part}": value for part, value in parts.items()}}


def _nf4_specs(name: str, shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    count = math.prod(shape)
    blocks = -(-count // _BLOCK)
    return {
        name: TensorSpec("U8", (-(-count // 2), 1)),
        f"{name}.absmax": TensorSpec("U8", (blocks,)),
        f"{name}.nested_absmax": TensorSpec("F32", (-(-blocks // _NESTED_BLOCK),)),
        f"{name}.nested_quant_map": TensorSpec("F32", (256,)),
        f"{name}.quant_map": TensorSpec("F32", (16,)),
        f"{name}.{_STATE}": TensorSpec("U8", (_STATE_BYTES,)),
    }


def _write_config(fmt: str, source: Path, out: Path, device: torch.device) -> None:
    from transformers import AutoConfig, BitsAndBytesConfig

    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    config.quantization_config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if fmt == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(device),
        )
    )
    config.save_pretrained(out)
