"""prepare: what can be read, what is rejected and why, and how rows are split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from housecall.artifact import Artifact
from housecall.config import BaseConfig, DataConfig
from housecall.errors import ConfigError, DataError, reason_of
from housecall.pipeline import Run
from housecall.steps import fetch, prepare
from shared_data import shared_data
from tiny_runs import dialogue, write_rows

ALPACA = [
    {"instruction": "Be a doctor.", "input": question, "output": answer}
    for question, answer in map(dialogue, range(20))
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
        {"role": "user", "content": dialogue(3)[0]},
        {"role": "assistant", "content": dialogue(3)[1]},
    ]
    assert made.metrics["system_prompt"] == "Be a doctor."
    assert made.metrics["rows"] == {"train": 16, "validation": 2, "test": 2}


def test_a_mapping_names_other_columns(base: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [dict(zip("qa", dialogue(i), strict=True)) for i in range(12)]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = DataConfig(source=str(file), mapping={"user": "q", "assistant": "a"}, limit=11)
    made = prepare.run(config, base, tmp_path / "out")
    assert sorted(row["row"] for row in all_rows(made)) == list(range(1, 12))


def turns(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def turn(question: str, answer: str) -> dict[str, Any]:
    return turns(("user", question), ("assistant", answer))


def reject_one(line: bytes, base: Artifact, folder: Path) -> dict[str, Any]:
    """The one rejected row of a good file with a bad line at its end."""
    file = write_rows(folder / "rows.jsonl", 20)
    with file.open("ab") as stream:
        stream.write(line + b"\n")
    made = prepare.run(DataConfig(source=str(file)), base, folder / "out")
    (rejected,) = rows_of(made, "rejected")
    assert made.metrics["rejected"] == {rejected["reason"]: 1}
    assert len(all_rows(made)) == 20
    return rejected


LONG = "You may take plenty of rest and drink water all day, as I have said before. " * 60


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turn("Hi", "  "), "an empty turn"),
        (turns(("user", "one")), "turns do not alternate between user and assistant"),
        (turn(*dialogue(0)), "the same as an earlier row"),
        (turn("x\x00", dialogue(30)[1]), "broken characters"),
        (turn("half a character \ud83d", dialogue(31)[1]), "broken characters"),
        (turn("long", LONG), "longer than data.max_tokens (512)"),
    ],
)
def test_a_dialogue_that_cannot_be_used_is_rejected_with_its_reason(
    row: dict[str, Any], reason: str, base: Artifact, tmp_path: Path
) -> None:
    rejected = reject_one(json.dumps(row).encode(), base, tmp_path)
    assert (rejected["row"], rejected["reason"]) == (21, reason)
    said = [{**m, "content": m["content"].strip()} for m in row["messages"]]
    assert rejected["messages"] == said


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        (turns(("robot", "beep")), "role 'robot'"),
        ({"messages": 5}, "'int' object is not iterable"),
        ({"messages": ["hi"]}, "a message is str, not role and content"),
        ({"messages": [{"role": "user"}]}, "no 'content'"),
        ({"messages": [{"role": "user", "content": 5}]}, "content is int, not text"),
        ({"question": "?"}, "no column instruction, input, output"),
        ([1, 2], "a row is list, not columns with values"),
        (turn("field", "x" * 10_000_000), "content has 10,000,000 characters"),
    ],
)
def test_a_row_that_is_no_dialogue_is_rejected_whole(
    row: Any, detail: str, base: Artifact, tmp_path: Path
) -> None:
    rejected = reject_one(json.dumps(row).encode(), base, tmp_path)
    assert (rejected["row"], rejected["reason"]) == (21, "not a dialogue")
    assert rejected["detail"] == detail
    assert json.loads(rejected["text"]) == row


def test_a_line_that_is_not_json_is_rejected_with_its_number(
    base: Artifact, tmp_path: Path
) -> None:
    rejected = reject_one(b'{"messages": [{"role"', base, tmp_path)
    assert (rejected["reason"], rejected["text"]) == ("not JSON", '{"messages": [{"role"')
    assert rejected["detail"].startswith("line 21: ")


def test_bytes_of_another_encoding_are_kept_in_the_rejected_row(
    base: Artifact, tmp_path: Path
) -> None:
    line = json.dumps(turn("At the cafe?", dialogue(30)[1])).encode().replace(b"cafe", b"caf\xe9")
    rejected = reject_one(line, base, tmp_path)
    assert rejected["reason"] == "broken characters"
    question = rejected["messages"][0]["content"]
    assert question.encode("utf-8", "surrogateescape") == b"At the caf\xe9?"


def test_a_csv_row_with_too_many_fields(base: Artifact, tmp_path: Path) -> None:
    rows = "".join(f'"{q}","{a}"\n' for q, a in map(dialogue, range(12)))
    file = tmp_path / "rows.csv"
    file.write_text(f"q,a\n{rows}Why?,So it is.,x,y\n")
    config = DataConfig(source=str(file), mapping={"user": "q", "assistant": "a"})
    made = prepare.run(config, base, tmp_path / "out")
    (rejected,) = rows_of(made, "rejected")
    assert (rejected["reason"], rejected["detail"]) == ("more fields than columns", "2 more")
    assert rejected["text"] == "['Why?', 'So it is.', ['x', 'y']]"


def test_the_same_seed_gives_the_same_bytes_and_no_row_is_in_two_splits(
    base: Artifact, tmp_path: Path
) -> None:
    config = DataConfig(source=str(write_rows(tmp_path / "rows.jsonl")))
    one = prepare.run(config, base, tmp_path / "one")
    two = prepare.run(config, base, tmp_path / "two")
    other = prepare.run(config.model_copy(update={"seed": 1}), base, tmp_path / "other")
    assert one.manifest["files"] == two.manifest["files"]
    assert one.manifest["files"] != other.manifest["files"]
    assert one.metrics["content_sha256"] == two.metrics["content_sha256"]
    assert one.metrics["content_sha256"] != other.metrics["content_sha256"]
    numbers = [row["row"] for row in all_rows(one)]
    assert len(numbers) == len(set(numbers)) == 48


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "no such file"),
        ("rows.txt", "x", "a file that ends in"),
        ("rows.json", "{", "can't be read"),
        ("rows.json", '{"a": 1}', "list of rows"),
        ("rows.jsonl", '{"messages": []}\n{broken', "10 are needed (1 turns do not alternate"),
        ("rows.jsonl", "{broken\n[1]", "no column instruction, input, output (found: no columns)"),
        ("rows.json", '[{"messages": []}, {"messages": [}]', "row 2: not JSON"),
        ("rows.json", '[{"messages": []} {"messages": []}]', "after row 1 comes {"),
        ("rows.json", '[{"messages": []}', "after row 1 comes the end of the file"),
        ("rows.json", '[{"messages": []}]x', "after the list comes x"),
        ("rows.json", "[" * 100_000, "nested too deeply"),
        ("rows.jsonl", "", "the source is empty"),
        ("rows.jsonl", '{"question": "x"}', "no column instruction, input, output (found: q"),
        ("rows.jsonl", b"\xff\xfe\x00", "can't be read: it is UTF-16: save it as UTF-8"),
        ("rows.parquet", "not parquet", "can't be read"),
        ("rows.csv", "a\x1b[2J,b\n1,2\n", r"(found: 'a\x1b[2J', b)"),
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
    name = f"org/{'long-' * 15}name"
    with pytest.raises(DataError, match=r"could not be had.*--set data.source=") as data:
        prepare.run(DataConfig(source=f"hub:{name}"), base, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"could not be had.*--set base.source=") as model:
        fetch.run(BaseConfig(source=f"hub:{name}"), tmp_path / "base")
    for error in (data.value, model.value):
        assert error.__cause__ is not None
        assert f"hub:{name}" in str(error)
        assert f": {reason_of(error.__cause__)}); without a network" in str(error)
        assert "\n" not in str(error)


def test_the_content_hash_knows_no_path(base: Artifact, tmp_path: Path) -> None:
    hashes = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        config = DataConfig(source=str(write_rows(tmp_path / name / "rows.jsonl")))
        made = prepare.run(config, base, tmp_path / name / "out")
        hashes.add(made.metrics["content_sha256"])
    assert len(hashes) == 1


def test_the_hub_is_streamed(
    base: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(name: str, *, split: str, streaming: bool) -> Any:
        assert (name, split, streaming) == ("org/name", "train", True)
        return iter(ALPACA)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    made = prepare.run(DataConfig(source="hub:org/name", limit=15), base, tmp_path / "out")
    assert sorted(row["row"] for row in all_rows(made)) == list(range(1, 16))
    assert made.metrics["source_sha256"] is None


def words_of(number: int, count: int) -> str:
    """Many words that no other number has."""
    return " ".join(f"word{number}x{i}" for i in range(count)) + "."


def test_rows_with_like_questions_or_answers_stay_in_one_split(
    base: Artifact, tmp_path: Path
) -> None:
    rows = []
    for i in range(60):
        same_question, same_answer = i // 3, 1000 + i // 4
        rows.append({"q": words_of(same_question, 30) + f" {i}", "a": words_of(5000 + i, 20)})
        rows.append({"q": words_of(9000 + i, 30), "a": words_of(same_answer, 20) + f" {i}."})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    config = DataConfig(
        source=str(file), mapping={"user": "q", "assistant": "a"}, held_out=0.2, max_tokens=4096
    )
    made = prepare.run(config, base, tmp_path / "out")
    assert made.metrics["clusters"] == {"count": 20 + 15, "largest": 4}
    home: dict[str, set[str]] = {}
    for name in prepare.SPLITS:
        for row in rows_of(made, name):
            question, answer = (m["content"] for m in row["messages"])
            for key in (question.split(".")[0], answer.split(".")[0]):
                home.setdefault(key, set()).add(name)
    assert all(len(splits) == 1 for splits in home.values())
    assert min(made.metrics["rows"].values()) > 15


def test_near_duplicates_are_dropped_and_name_the_row_they_are_like(
    base: Artifact, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 20)
    long = [words_of(1, 40), words_of(2, 40)]
    rows = [long, [long[0], "Indeed, and as you know, " + long[1]], [long[0], words_of(3, 40)]]
    with file.open("a") as stream:
        for question, answer in rows:
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            stream.write(json.dumps({"messages": messages}) + "\n")
    config = DataConfig(source=str(file), max_tokens=4096)
    made = prepare.run(config, base, tmp_path / "out")
    (rejected,) = rows_of(made, "rejected")
    assert (rejected["row"], rejected["detail"]) == (22, "row 21")
    assert rejected["reason"] == "nearly the same as an earlier row"
    assert rejected["messages"][1]["content"] == "Indeed, and as you know, " + long[1]
    strict = config.model_copy(update={"near_duplicate": 1.0})
    assert len(all_rows(prepare.run(strict, base, tmp_path / "strict"))) == 23


def test_rows_that_are_all_one_cluster_cannot_be_split(base: Artifact, tmp_path: Path) -> None:
    rows = [{"q": words_of(1, 30), "a": words_of(10 + i, 30)} for i in range(20)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    config = DataConfig(source=str(file), mapping={"user": "q", "assistant": "a"}, max_tokens=4096)
    with pytest.raises(
        DataError, match=r"nothing is left for validation and test: the 20 rows are 1"
    ):
        prepare.run(config, base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_a_data_set_of_which_nothing_survives_is_one_clear_line(
    base: Artifact, tmp_path: Path
) -> None:
    rows = [{"q": f"Question {i}?", "a": "You should take hy ChatDoctor. Then rest a while."}
            for i in range(30)]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    config = DataConfig(source=str(file), mapping={"user": "q", "assistant": "a"})
    with pytest.raises(DataError) as caught:
        prepare.run(config, base, tmp_path / "out")
    assert str(caught.value).endswith(
        "0 rows can be used, 10 are needed (30 words overwritten by ChatDoctor)"
    )
    assert list(tmp_path.iterdir()) == [file]


def test_personal_data_is_in_no_file_and_is_counted(base: Artifact, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 20)
    bad = {"messages": [{"role": "user", "content": "Mail me at a.b@example.org"}]}
    question = (
        "My name is Theodora. Call me on +44 20 7946 0000, or write to t@example.org, please."
    )
    good = {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "Dr. Miller will write to you before the week ends."},
        ]
    }
    with file.open("a") as stream:
        stream.write(json.dumps(bad) + "\n" + json.dumps(good) + "\nnot JSON: a@example.org\n")
    made = prepare.run(DataConfig(source=str(file)), base, tmp_path / "out")
    assert made.metrics["masked"] == {"name": 2, "email": 1, "phone": 1}
    (row,) = [row for row in all_rows(made) if row["row"] == 22]
    assert [m["content"] for m in row["messages"]] == [
        "My name is [name]. Call me on [phone], or write to [email], please.",
        "Dr. [name] will write to you before the week ends.",
    ]
    text = "".join(f.read_text() for f in made.path.iterdir())
    assert "example.org" not in text
    assert "Miller" not in text


def test_without_cleaning_and_masking_rows_stay_as_they_are(base: Artifact, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 20)
    messages = [
        {"role": "user", "content": "My name is Theodora."},
        {"role": "assistant", "content": "Welcome to Chat Doctor.  <b>Rest</b>"},
    ]
    with file.open("a") as stream:
        stream.write(json.dumps({"messages": messages}) + "\n")
    config = DataConfig(source=str(file), clean=False, mask_personal_data=False)
    made = prepare.run(config, base, tmp_path / "out")
    assert [row["messages"] for row in all_rows(made) if row["row"] == 21] == [messages]


def test_the_report_tells_rows_reasons_and_distributions(base: Artifact, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 40)
    with file.open("a") as stream:
        stream.write("broken\n")
    made = prepare.run(DataConfig(source=str(file)), base, tmp_path / "out")
    report = json.loads((made.path / "report.json").read_text())
    assert report["rows"] == {"read": 41, "kept": 40, "rejected": {"not JSON": 1}}
    for name in ("tokens", "answer_words"):
        assert sum(part["rows"] for part in report[name]["histogram"]) == 40
    assert sum(report["topics"].values()) == 40
    assert report["turns"] == {"1": 40}
    markdown = (made.path / "report.md").read_text()
    assert "40 of 41 rows kept" in markdown
    assert "| not JSON | 1 |" in markdown
    assert "####" in markdown
    names = {entry["path"] for entry in made.manifest["files"]}
    assert names == {
        *("train.jsonl", "validation.jsonl", "test.jsonl", "rejected.jsonl"),
        *("report.json", "report.md"),
    }


def test_the_starter_loses_no_row(base: Artifact, tmp_path: Path) -> None:
    made = prepare.run(
        DataConfig(source="builtin:starter", max_tokens=100_000), base, tmp_path / "out"
    )
    assert made.metrics["rejected"] == made.metrics["mended"] == made.metrics["masked"] == {}
    assert sum(made.metrics["rows"].values()) == 344


@pytest.mark.slow
def test_icliniq_keeps_enough_and_no_answer_with_overwritten_words(
    base: Artifact, tmp_path: Path
) -> None:
    file = shared_data("dialogues/icliniq2k_raw/icliniq_2k.jsonl")
    made = prepare.run(DataConfig(source=str(file), max_tokens=4096), base, tmp_path / "out")
    kept = all_rows(made)
    assert len(kept) >= 1100
    rejected = rows_of(made, "rejected")
    assert sorted(row["row"] for row in [*kept, *rejected]) == list(range(1, 2001))
    text = json.dumps([row["messages"] for row in kept]).lower()
    assert "chatdoctor" not in text
    assert "chat doctor" not in text
    assert "\\\\x" not in text
