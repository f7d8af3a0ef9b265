"""A tiny run that was measured once, and copies of one that was not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("xllamacpp", reason="needs the serving engine")
pytest.importorskip("matplotlib", reason="needs the extra train")

from housecall.pipeline import Run
from housecall.steps.bench import Bench, run


@pytest.fixture
def copy(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is judged and not measured, free to be broken."""
    monkeypatch.setenv("HOUSECALL_THREADS", "1")
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run", tiny_run.recipe)


@pytest.fixture(scope="session")
def measured(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was really measured, all its models."""
    copied = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(tiny_run.path, copied)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSECALL_THREADS", "1")
        names = ("base", *tiny_run.recipe.quantize.formats)
        run(Bench(copied, names), tiny_run.recipe.bench, copied / "bench")
    return Run(copied, tiny_run.recipe)
