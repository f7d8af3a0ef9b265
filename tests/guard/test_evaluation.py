"""The figures of ``housecall guard eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from housecall.cli import cli
from housecall.errors import DataError
from housecall.guard import MedicalGuard
from housecall.guard.evaluation import Share, evaluate, read_cases

ROWS = [
    {"id": "a", "text": "I can't breathe", "expect": "emergency", "language": "en"},
    {"id": "b", "text": "I feel a bit odd", "expect": "emergency", "language": "en"},
    {"id": "c", "text": "My knee hurts a little", "expect": "none", "language": "en"},
    {"id": "d", "text": "how much ibuprofen can I take?", "expect": "dose"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n", encoding="utf-8")
    return file


def test_wilson_interval() -> None:
    """Against the worked example of 8 of 10 (statsmodels: 0.4902, 0.9433)."""
    low, high = Share(8, 10).interval or (0, 0)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert Share(0, 0).interval is None


def test_figures(guard: MedicalGuard, file: Path) -> None:
    found = evaluate(guard, read_cases(file))
    assert found.recall["all"] == Share(1, 2)
    assert found.false_alarms["all"] == Share(0, 2)
    assert found.recall["level dose (level dose)"] == Share(1, 1)
    assert found.recall["changed: played down"] == Share(1, 2)
    assert [case.id for case in found.missed] == ["b"]


def test_the_command_keeps_texts_to_itself_unless_asked(file: Path) -> None:
    plain = CliRunner().invoke(cli, ["guard", "eval", str(file)])
    assert plain.exit_code == 0
    assert "1/2" in plain.output
    assert "a bit odd" not in plain.output
    assert (
        "b: I feel a bit odd"
        in CliRunner().invoke(cli, ["guard", "eval", str(file), "--misses"]).output
    )
    data = json.loads(CliRunner().invoke(cli, ["guard", "eval", str(file), "--json"]).output)
    assert data["recall"]["all"]["count"] == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "1: not JSON"),
        ("[]", "1: needs an object"),
        ('{"text": "x"}', "1: expect is None"),
        ("", "no message"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_cases(file)


def test_what_the_rules_were_written_with_stays_read(guard: MedicalGuard) -> None:
    """A floor under regressions; not an estimate (docs/guard.md)."""
    shipped = Path(__file__).parents[2] / "src" / "housecall" / "data" / "guard_dev.jsonl"
    found = evaluate(guard, read_cases(shipped))
    assert found.recall["all"].count >= 0.95 * found.recall["all"].total, found.missed
    assert found.false_alarms["all"].count <= 0.03 * found.false_alarms["all"].total
