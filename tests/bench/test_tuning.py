"""Settings of the engine: searched by measuring, kept for one machine, used by who serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from housecall.bench.tuning import candidates, search, tries
from housecall.engines import tuning as module
from housecall.engines.tuning import FILE, Tuned, Tuning, find_tuning, read_tuned, write_tuned

FOUND = Tuned(Tuning(threads=3, repack=False), {"tokens_per_second": 20.0})


def test_a_faster_value_is_taken_and_the_next_search_starts_from_it() -> None:
    seen: list[Tuning] = []

    def rate(tuning: Tuning) -> float:
        seen.append(tuning)
        return (20 if tuning.map_file else 26) * (1 if tuning.flash_attention else 0.9)

    best, trials = search(rate, cores=2)
    assert best == Tuning(map_file=False)
    assert [t.setting for t in trials if t.taken] == [name for name, _ in candidates(2)]
    assert seen[-1].map_file is False
    assert len(seen) == tries(2)


def test_noise_alone_changes_nothing() -> None:
    random = np.random.default_rng(3)
    changed = 0
    for _ in range(200):
        best, _ = search(lambda _: float(20 * random.lognormal(0, 0.05)), cores=4)
        changed += best != Tuning()
    assert changed / 200 < 0.1  # eight values were tried each time


def test_more_cores_mean_more_values_of_threads() -> None:
    assert dict(candidates(8))["threads"] == [7, 4]
    assert dict(candidates(2))["threads"] == [1]
    assert "threads" not in dict(candidates(1))


def test_what_was_found_is_kept_for_this_machine_and_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_tuned(tmp_path) is None
    write_tuned(tmp_path, FOUND)
    assert read_tuned(tmp_path) == FOUND
    assert find_tuning(tmp_path, None) == FOUND.tuning
    assert find_tuning(tmp_path, 1) == Tuning(threads=1, repack=False)
    other = {"processor": "another", "cores": 64, "engine": "1"}
    monkeypatch.setattr(module, "_machine", lambda: other)
    assert read_tuned(tmp_path) is None
    assert find_tuning(tmp_path, None) == Tuning()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": 1}', "null"])
def test_a_file_that_makes_no_sense_is_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_tuned(tmp_path) is None


def test_settings_of_another_version_are_no_settings(tmp_path: Path) -> None:
    file = write_tuned(tmp_path, FOUND)
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "settings": {**saved["settings"], "turbo": True}}))
    assert read_tuned(tmp_path) is None
