"""What a training needs to go on after it was ended at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from housecall.artifact import is_no_space, no_space
from housecall.progress import console


@dataclass(slots=True)
class Progress:
    """How far training is. Losses in nats a token, seconds of work without evaluations."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss_before: float | None = None
    train_loss_before: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    stopped_early: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class CheckpointFile:
    """One file beside the artifact that will be made; a new one replaces it in one move.

    ``identity`` is what the training depends on: another recipe or data set has another file.
    """

    def __init__(self, out: Path, identity: Any) -> None:
        text = json.dumps(identity, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = out.parent / f".{out.name}.{name}.checkpoint"
        self._partial = self.path.with_suffix(".partial")

    def save(self, progress: Progress, state: dict[str, Any]) -> None:
        """Write and replace; a kill at any moment leaves the old file or the new one.

        Raises ArtifactError when the disk is full; the old file is kept.
        """
        try:
            with self._partial.open("wb") as stream:
                torch.save({"progress": asdict(progress), **state}, stream)
                stream.flush()
                os.fsync(stream.fileno())
        except (OSError, RuntimeError) as error:
            self._partial.unlink(missing_ok=True)
            if is_no_space(error):
                raise no_space(self.path) from error
            raise
        self._partial.replace(self.path)

    def load(self, device: torch.device) -> tuple[Progress, dict[str, Any]] | None:
        """The last one, or None: there is none, or the disk has damaged it (that is said)."""
        self._partial.unlink(missing_ok=True)
        try:
            state = torch.load(self.path, weights_only=True, map_location=device)
            return Progress(**state.pop("progress")), state
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever unpickling runs into
            console().print(f"{self.path}: damaged ({type(error).__name__}): training starts anew")
            return None

    def forget(self) -> None:
        """The artifact is made."""
        self.path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)
