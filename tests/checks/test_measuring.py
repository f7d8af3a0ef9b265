"""The parts of the gate: intervals, questions, and a model that is read layer by layer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from housecall.causal_lm import load_model
from housecall.checks.conversations import conversations
from housecall.checks.diagnosis import explain
from housecall.checks.measure import _divergence_of_top
from housecall.checks.questions import BUILTIN, LaidOut, choices, lay_out, read_questions
from housecall.checks.statistics import bootstrap_mean, wilson
from housecall.checks.streamed import read_folder, streamed_model
from housecall.errors import DataError
from housecall.lineage import GGUF_FILE
from housecall.pipeline import Run
from housecall.steps.base import HfTokenizer, load_template


def test_wilson_is_the_textbook_interval() -> None:
    # Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662.
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_the_bootstrap_covers_the_mean_and_draws_whole_groups() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(5, 20, size=60).tolist()
    # All tokens of a group are alike: an interval over tokens would be far too narrow.
    sums = [float(random.normal(3, 1)) * n for n in sizes]
    low, high = bootstrap_mean(sums, sizes)
    mean = sum(sums) / sum(sizes)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(60), rel=0.4)
    assert bootstrap_mean(sums, sizes) == (low, high)


def test_a_divergence_of_the_top_is_never_larger_than_the_whole() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        p, q = (torch.randn(50, generator=generator).log_softmax(0) for _ in range(2))
        whole = float((p.exp() * (p - q)).sum())
        ids = q.topk(10).indices
        assert 0 <= _divergence_of_top(p, ids, q[ids]) <= whole + 1e-6
        everything = torch.arange(50)
        assert _divergence_of_top(p, everything, q) == pytest.approx(whole, abs=1e-4)


def test_there_are_more_than_sixty_conversations_and_none_twice() -> None:
    found = conversations()
    assert len({c.messages for c in found}) == len(found) >= 60
    assert sum(c.types_control for c in found) >= 6


def test_a_model_read_layer_by_layer_is_the_same_model(tiny_llama: Path) -> None:
    whole = load_model(tiny_llama, dtype=torch.float32)
    ids = torch.tensor([[1, 5, 9, 200, 31, 2]])
    with torch.no_grad():
        streamed = streamed_model(tiny_llama, read_folder(tiny_llama))
        assert all(p.is_meta for p in streamed.parameters())
        assert torch.equal(streamed(input_ids=ids).logits, whole(input_ids=ids).logits)
        assert all(p.is_meta for p in streamed.parameters())


def test_the_built_in_questions_are_sound() -> None:
    questions = read_questions(BUILTIN, None)
    assert len(questions) >= 40
    assert len({q.text for q in questions}) == len(questions)
    places = [q.answer for q in questions]
    assert all(len(q.options) == 4 for q in questions)
    # The right answer stands in every place about as often.
    assert all(places.count(i) >= len(questions) // 8 for i in range(4))


def test_options_do_not_see_each_other(tiny_llama: Path) -> None:
    """A choice among four laid side by side is that of four answers computed alone."""
    tokenizer = HfTokenizer(tiny_llama)
    template = load_template(tiny_llama, tokenizer)
    laid = lay_out(read_questions(BUILTIN, 6), "Be brief.", template, tokenizer)
    model = load_model(tiny_llama, dtype=torch.float32)
    together = choices(model, laid)
    alone = [_choice_alone(model, question) for question in laid]
    assert together == alone
    assert len(set(together)) > 1


def _choice_alone(model: object, question: LaidOut) -> int:
    scores = []
    for (start, end), size in zip(question.spans, question.sizes, strict=True):
        ids = [*question.ids[: question.prefix], *question.ids[start:end]]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]  # type: ignore[operator]
        logs = logits.log_softmax(-1)
        places = range(question.prefix, len(ids))
        scores.append(sum(float(logs[i - 1, ids[i]]) for i in places) / size)
    return max(range(len(scores)), key=scores.__getitem__)


def write(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_questions_of_a_file(tmp_path: Path) -> None:
    by_letter = {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "B", "id": 7}
    by_text = {"question": "Q?", "options": ["x", "y", "z"], "answer": "z"}
    repeats = {"question": "Q?", "options": {"A": "x", "B": "no", "C": "no"}, "answer": "C"}
    file = write(tmp_path / "q.jsonl", by_letter, by_text, repeats)
    assert [q.answer for q in read_questions(file, None)] == [1, 2, 1]
    assert len(read_questions(file, 1)) == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "Q?", "options": ["x", "y"]}, "question 1: no key 'answer'"),
        ({"question": "Q?", "options": ["x", "y"], "answer": "q"}, "question 1: .*'q'"),
        ({"question": "Q?", "options": ["x", "x"], "answer": "x"}, "two or more different"),
        ({"question": "Q?", "options": ["x", " "], "answer": "x"}, "none of them empty"),
        ("text", "question 1: "),
    ],
)
def test_wrong_questions_are_one_line(tmp_path: Path, row: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_questions(write(tmp_path / "q.jsonl", row), None)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "can't be read: No such file"),
        ("q.txt", "x", "give builtin:health-literacy, or a file that ends in .jsonl"),
        ("q.jsonl", "{", "not JSON"),
        ("q.json", "[]", "holds no question"),
    ],
)
def test_wrong_files_of_questions_are_one_line(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"gate.questions .*{name}: {says}"):
        read_questions(str(tmp_path / name), None)


def test_questions_of_the_public_sets() -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "mcq" / "mcq_dev.jsonl"
    if not file.exists():
        pytest.skip("shared/data/mcq is not here")
    assert len(read_questions(str(file), None)) == 3304


def test_a_sound_file_has_nothing_to_explain(whole_run: Run) -> None:
    for fmt in ("gguf-f16", "gguf-q8_0"):
        file = whole_run.path / "variants" / fmt / GGUF_FILE
        assert explain(file, whole_run.path / "merged") == []
