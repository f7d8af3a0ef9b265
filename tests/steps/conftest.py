"""A whole run on a random tiny model, made once for all tests of the steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from housecall.pipeline import Run, execute, open_run
from tiny_runs import tiny_recipe, write_rows


@pytest.fixture(scope="session")
def tiny_run(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The pipeline up to the gate."""
    folder = tmp_path_factory.mktemp("tiny-run")
    recipe = tiny_recipe(tiny_llama, write_rows(folder / "rows.jsonl"))
    run = open_run(folder / "run", recipe)
    execute(run, stop="gate")
    return run
