"""prepare: what can be read, what is rejected and why, and how rows are split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from housecall.artifact import Artifact
from housecall.config import DataConfig
from housecall.errors import DataError
from housecall.pipeline import Run
from housecall.steps import prepare
from tiny_runs import write_rows

ALPACA = [
    {"instruction": "Be a doctor.", "input": f"Question {i}?", "output": f"Answer {i}."}
    for i in range(20)
]


@pytest.fixture
def base(tiny_run: Run) -> Artifact:
    return tiny_run.artifact("base")


def rows_of(artifact: Artifact, split: str) -> list[dict[str, Any]]:
    text = (artifact.path / f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def all_rows(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for split in prepare.SPLITS for row in rows_of(artifact, split)]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ALPACA))


def write_jsonl(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ALPACA)))


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["instruction", "input", "output"])
        writer.writeheader()
        writer.writerows(ALPACA)


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ALPACA), path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".json", write_json),
        (".jsonl", write_jsonl),
        (".csv", write_csv),
        (".parquet", write_parquet),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(
    suffix: str, write: Callable[[Path], None], base: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / f"rows{suffix}"
    write(file)
    made = prepare.run(DataConfig(source=str(file)), base, tmp_path / "out")
    found = sorted(all_rows(made), key=lambda row: row["row"])
    assert [row["row"] for row in found] == list(range(1, 21))
    assert found[3]["messages"] == [
        {"role": "system", "content": "Be a doctor."},
        {"role": "user", "content": "Question 3?"},
        {"role": "assistant", "content": "Answer 3."},
    ]
    assert made.metrics["system_prompt"] == "Be a doctor."
    assert made.metrics["rows"] == {"train": 16, "validation": 2, "test": 2}


def test_a_mapping_names_other_columns(base: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"q": f"Why {i}?", "a": f"So {i}."}) for i in range(12)))
    config = DataConfig(source=str(file), mapping={"user": "q", "assistant": "a"}, limit=11)
    made = prepare.run(config, base, tmp_path / "out")
    assert sorted(row["row"] for row in all_rows(made)) == list(range(1, 12))


def test_rejected_rows_are_kept_with_their_reason(base: Artifact, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 20)
    bad = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}]},
        {"messages": [{"role": "user", "content": "only a question"}]},
        {"messages": [{"role": "robot", "content": "beep"}]},
        {"messages": 5},
        json.loads(file.read_text().splitlines()[0]),
        {
            "messages": [
                {"role": "user", "content": "x\x00"},
                {"role": "assistant", "content": "y"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "long"},
                {"role": "assistant", "content": "word " * 600},
            ]
        },
    ]
    with file.open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in bad)
    made = prepare.run(DataConfig(source=str(file)), base, tmp_path / "out")
    reasons = {row["row"]: row["reason"] for row in rows_of(made, "rejected")}
    assert sorted(reasons) == list(range(21, 28))
    assert reasons[21] == "an empty turn"
    assert "alternate" in reasons[22]
    assert "robot" in reasons[23]
    assert "not a dialogue" in reasons[24]
    assert reasons[25] == "the same as an earlier row"
    assert reasons[26] == "broken characters"
    assert "longer than data.max_tokens" in reasons[27]
    assert sum(made.metrics["rejected"].values()) == 7


def test_the_same_seed_gives_the_same_bytes_and_no_row_is_in_two_splits(
    base: Artifact, tmp_path: Path
) -> None:
    config = DataConfig(source=str(write_rows(tmp_path / "rows.jsonl")))
    one = prepare.run(config, base, tmp_path / "one")
    two = prepare.run(config, base, tmp_path / "two")
    other = prepare.run(config.model_copy(update={"seed": 1}), base, tmp_path / "other")
    assert one.manifest["files"] == two.manifest["files"]
    assert one.manifest["files"] != other.manifest["files"]
    numbers = [row["row"] for row in all_rows(one)]
    assert len(numbers) == len(set(numbers)) == 48


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "no such file"),
        ("rows.txt", "x", "a file that ends in"),
        ("rows.json", "{", "can't be read"),
        ("rows.json", '{"a": 1}', "list of rows"),
        ("rows.jsonl", '{"messages": []}\n{broken', "line 2"),
        ("rows.jsonl", "", "the source is empty"),
        ("rows.jsonl", '{"question": "x"}', "no column instruction, input, output (found: q"),
        ("rows.jsonl", b"\xff\xfe\x00", "can't be read"),
        ("rows.parquet", "not parquet", "can't be read"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_clear_line(
    name: str, content: str | bytes | None, says: str, base: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(DataError) as caught:
        prepare.run(DataConfig(source=str(file)), base, tmp_path / "out")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_hub_out_of_reach_says_what_to_pass_instead(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hub:org/name: could not be had.*--set data.source="):
        prepare.run(DataConfig(source="hub:org/name"), base, tmp_path / "out")
