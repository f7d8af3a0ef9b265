"""Files as rows, one at a time: where blocks end, what is broken, and what memory it takes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from housecall import readers
from housecall.errors import DataError
from housecall.readers import Unreadable, read_file
from shared_data import shared_data

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def rows_of(folder: Path, name: str, content: str | bytes) -> list[Any]:
    file = folder / name
    file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return list(read_file(file))


@given(rows=st.lists(VALUES, max_size=8), indent=st.sampled_from([None, 0, 3]),
       ascii_only=st.booleans(), block=st.integers(1, 40))  # fmt: skip
@settings(max_examples=100)
def test_a_json_list_reads_the_same_wherever_its_blocks_end(
    rows: list[Any], indent: int | None, ascii_only: bool, block: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        assert rows_of(tmp_path_factory.getbasetemp(), "rows.json", f" \n{text}\n ") == rows


def test_a_json_file_of_many_megabytes_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    row = {"text": "word " * 200}
    with file.open("w") as stream:
        stream.write("[" + ",".join(json.dumps(row) for _ in range(20_000)) + "]")
    assert file.stat().st_size > 20_000_000
    tracemalloc.start()
    count = sum(one == row for one in read_file(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 10_000_000


def test_json_as_python_reads_it(tmp_path: Path) -> None:
    for file in sorted(shared_data("fuzz/jsontestsuite").rglob("*.json")):
        raw = file.read_bytes()
        try:
            expected = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError):
            expected = None
        try:
            found = rows_of(tmp_path, "rows.json", raw)
        except DataError:
            found = None
        if isinstance(expected, list):
            assert found == expected, file.name
        elif found is not None:  # bytes that are not UTF-8 are kept as they are
            assert any("\\udc" in ascii(row) for row in found), file.name


def test_lines_that_are_not_json_do_not_end_a_file(tmp_path: Path) -> None:
    deep = "[" * 100_000
    found = rows_of(
        tmp_path, "r.jsonl", '\ufeff{"a": 1}\n\n{"a": \n"b"\x00\n' + deep + '\n{"a": 2}'
    )
    good = [row for row in found if not isinstance(row, Unreadable)]
    assert good == [{"a": 1}, {"a": 2}]
    bad = [(row.reason, row.detail.partition(":")[0]) for row in found if row not in good]
    assert bad == [("not JSON", "line 3"), ("not JSON", "line 4"), ("not JSON", "line 5")]


def test_a_line_ends_at_a_newline_only(tmp_path: Path) -> None:
    row = {"a": "one\u2028two\x85three\x0bfour"}
    assert rows_of(tmp_path, "r.jsonl", json.dumps(row, ensure_ascii=False) + "\r\n") == [row]


def test_other_encodings_keep_their_bytes(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "rows.csv", b"a,b\ncaf\xe9,x\n")
    assert row["a"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    with pytest.raises(DataError, match="it is UTF-16: save it as UTF-8"):
        rows_of(tmp_path, "rows.csv", "a,b\n1,2\n".encode("utf-16"))


def test_csv_with_nul_bytes_short_rows_and_long_fields(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    found = rows_of(tmp_path, "rows.csv", f'a,b\n1\x00,2\n3\n4,5,6\n"{long}","two\nlines"\n')
    assert found[0] == {"a": "1\x00", "b": "2"}
    assert found[1] == {"a": "3", "b": None}
    assert (found[2].reason, found[2].detail) == ("more fields than columns", "1 more")
    assert found[3] == {"a": long, "b": "two\nlines"}


def test_parquet_with_text_that_is_not_utf_8(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra train")
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([b"good", b"caf\xe9", None], pyarrow.binary())
    table = pyarrow.table(
        {"a": pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers()), "n": [1, 2, 3]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    found = list(read_file(tmp_path / "rows.parquet"))
    assert [row["n"] for row in found] == [1, 2, 3]
    assert found[0]["a"] == "good"
    assert found[1]["a"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert found[2]["a"] is None
