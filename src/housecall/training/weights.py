"""Frozen weights: dense, or in 4-bit NormalFloat and made dense when they are used."""

from __future__ import annotations

from typing import Any

import torch

from housecall.training.functions import Frozen


class Dense:
    """A matrix kept as it is computed with."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def dense(self) -> torch.Tensor:
        """The matrix (outputs, inputs)."""
        return self._matrix


class NormalFloat4:
    """A matrix in NF4 with double quantisation (Dettmers et al. 2023): 4.1 bits a weight.

    Made dense anew at each use: on a CPU that takes half a percent of the product it is for, and
    the dense matrices of a whole model never exist together.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        from bitsandbytes.functional import quantize_4bit

        self._packed, self._state = quantize_4bit(
            matrix.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4"
        )

    def dense(self) -> torch.Tensor:
        """The matrix (outputs, inputs), as its 4 bits say."""
        from bitsandbytes.functional import dequantize_4bit

        matrix: torch.Tensor = dequantize_4bit(self._packed, self._state)
        return matrix


def freeze(matrix: Any, quantization: str) -> Frozen:
    """``nf4`` or ``none``."""
    return NormalFloat4(matrix) if quantization == "nf4" else Dense(matrix)
