"""A run for Hugging Face: the merged float16 model, its tokenizer and the model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from housecall.artifact import MANIFEST, Artifact
from housecall.errors import ArtifactError
from housecall.exports.base import copy_verified, make_folder
from housecall.model_card import CARD, PICTURE, write_card


def export_huggingface(run: Path, out: Path) -> None:
    """Write a folder that transformers loads and the hub shows.

    Raises ArtifactError when the run has no merged model or was not judged, and ConfigError when
    ``out`` is there already.
    """
    merged = Artifact.load(run / "merged")
    if not (run / "gate" / MANIFEST).is_file():
        raise ArtifactError(f"{run}: was not judged: run  housecall gate {run.name}")
    write_card(run)

    def fill(folder: Path) -> None:
        for entry in merged.manifest["files"]:
            (folder / entry["path"]).parent.mkdir(parents=True, exist_ok=True)
            copy_verified(merged, entry["path"], folder / entry["path"])
        shutil.copyfile(run / CARD, folder / "README.md")
        shutil.copyfile(run / f"{PICTURE}.png", folder / f"{PICTURE}.png")

    make_folder(out, fill)
