"""A tiny run to break."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("xllamacpp", reason="needs the serving engine")
pytest.importorskip("matplotlib", reason="needs the extra train")

from housecall.pipeline import Run, execute, open_run
from tiny_runs import tiny_recipe, write_rows


@pytest.fixture(scope="session")
def whole_run(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the formats that the faults are put into, up to the gate."""
    folder = tmp_path_factory.mktemp("whole-run")
    recipe = tiny_recipe(
        tiny_llama,
        write_rows(folder / "rows.jsonl"),
        quantize={"formats": ["fp16", "gguf-f16", "gguf-q8_0"]},
    )
    run = open_run(folder / "run", recipe)
    execute(run, stop="gate")
    return run
