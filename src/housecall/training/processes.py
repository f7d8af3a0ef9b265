"""Several processes that train one model (``torchrun``), or the one that there usually is.

Each process takes a part of every step; the sums of their gradients are what one process would
have computed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from housecall.errors import MissingPackage
from housecall.machine import process_count, process_rank

# The whole of MLflow wants an older pyarrow than datasets; its small package has what is needed.
_PIP = {"mlflow": "mlflow-skinny"}


class Processes:
    """The processes of this training, and the trackers that are told of its figures."""

    def __init__(self, trackers: Sequence[str], config: Mapping[str, Any], folder: Path) -> None:
        self.count, self.rank = process_count(), process_rank()
        self._accelerator: Any = None
        if self.count == 1 and not trackers:
            return
        for name in trackers:
            if importlib.util.find_spec(name) is None:
                raise MissingPackage(f"train.trackers names {name}", _PIP.get(name, name))
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=list(trackers) or None,
            project_config=ProjectConfiguration(logging_dir=str(folder)),
        )
        if trackers:
            folder.mkdir(parents=True, exist_ok=True)
            # MLflow alone would write where the program was started, and tell its makers of it.
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            plain = {k: v for k, v in config.items() if isinstance(v, (int, float, str))}
            self._accelerator.init_trackers("housecall", config=plain)

    @property
    def first(self) -> bool:
        """True in the process that writes files and shows progress."""
        return self.rank == 0

    def mine(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part."""
        return items[self.rank :: self.count]

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace float32 tensors by their sums over all processes, in one message."""
        if self.count == 1:
            return
        parts = list(tensors)
        total = self._accelerator.reduce(torch.cat([p.flatten() for p in parts]), "sum")
        for part, summed in zip(parts, total.split([p.numel() for p in parts]), strict=True):
            part.copy_(summed.view_as(part))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Tell the trackers."""
        if self._accelerator is not None and self._accelerator.trackers:
            self._accelerator.log(dict(figures), step=step)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """End what was opened."""
        if self._accelerator is not None:
            self._accelerator.end_training()
