"""Causal language models in torch: loading a folder, batching dialogues, logits where they count.

Used for training, calibration and the gate; serving never imports this.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from housecall.chat_template import IGNORE, ChatTemplate, Encoded, Tokenizer, encode_for_training
from housecall.errors import DataError
from housecall.types import Message


@dataclass(frozen=True, slots=True)
class Batch:
    """Dialogues padded to one length on the right: three tensors of (rows, length)."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.labels.to(device))


def read_dialogues(file: Path) -> list[list[Message]]:
    """The dialogues of one split of a prepared data set."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [
        [Message(m["role"], m["content"]) for m in json.loads(line)["messages"]] for line in lines
    ]


def encode_dialogues(
    dialogues: Iterable[Sequence[Message]],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    end_of_turn: Iterable[int],
) -> list[Encoded]:
    """Token ids and labels, loss on the assistant's turns only."""
    ends = frozenset(end_of_turn)
    return [encode_for_training(template.segments(d), tokenizer, ends) for d in dialogues]


def take_tokens(rows: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The first rows that together have at most ``tokens`` tokens, at least one."""
    taken: list[Encoded] = []
    total = 0
    for row in rows:
        total += len(row.ids)
        if taken and total > tokens:
            break
        taken.append(row)
    if not taken:
        raise DataError("the data set's split is empty: prepare it with more rows")
    return taken


def make_batches(
    rows: Sequence[Encoded], tokens: int, shuffle: random.Random | None = None
) -> list[Batch]:
    """Batches of rows of like length, each at most ``tokens`` with its padding.

    Rows of like length together leave little padding to compute; ``shuffle`` mixes rows of equal
    length and the order of the batches.
    """
    order = list(rows)
    if shuffle:
        shuffle.shuffle(order)
    order.sort(key=lambda row: len(row.ids))
    batches: list[list[Encoded]] = [[]]
    for row in order:
        if batches[-1] and len(row.ids) * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(row)
    if shuffle:
        shuffle.shuffle(batches)
    return [_pad(batch) for batch in batches if batch]


def _pad(rows: Sequence[Encoded]) -> Batch:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORE)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        mask[i, :n] = 1
        labels[i, :n] = torch.tensor(row.labels)
    return Batch(ids, mask, labels)


def label_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, vocabulary) and targets (n,) at the positions that have a label, and only there.

    The projection onto the vocabulary is the largest matrix of a small model, and most positions
    of a dialogue have no label.
    """
    hidden = model.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)[0]
    targets = batch.labels[:, 1:]
    wanted = targets != IGNORE
    return model.lm_head(hidden[:, :-1][wanted]), targets[wanted]


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each target in nats, computed in float32."""
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def load_model(folder: Path, **options: Any) -> Any:
    """A model folder through transformers: local files only, no code from the folder."""
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, **options
    )
    model.eval()
    return model


def load_config(folder: Path) -> dict[str, Any]:
    """A model's config.json with the defaults of its family filled in, as transformers does."""
    quiet_libraries()
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    values: dict[str, Any] = config.to_dict()
    return values


@cache
def quiet_libraries() -> None:
    """Keep transformers and bitsandbytes from printing, and from fetching anything from a hub.

    bitsandbytes asks the package ``kernels``, where it is installed, to download a CPU kernel.
    """
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_dtype(device: torch.device, precision: str) -> torch.dtype:
    """What ``train.precision`` names; ``auto`` is bfloat16 where the hardware multiplies it.

    A GPU without it (such as a T4) computes in float16, with its loss scaled; a CPU in float32.
    """
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if precision != "auto":
        return named[precision]
    found = compute_dtype(device)
    return torch.float16 if device.type == "cuda" and found == torch.float32 else found


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
