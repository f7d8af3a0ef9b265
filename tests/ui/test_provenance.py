from __future__ import annotations

from typing import Any

import pytest

from housecall.ui.escape import formatted, plain
from housecall.ui.provenance import describe, describe_lineage

FACTS: dict[str, Any] = {
    "model": {"name": "a_b", "format": "gguf", "sha256": "cd" * 32, "run": None, "gated": False},
    "timings": {"ttft_ms": 210.0, "total_ms": 900.0, "tokens_per_second": 83.14},
    "usage": {"prompt_tokens": 3, "completion_tokens": 58, "cached_tokens": 0},
    "guard": {
        "level": "off_topic",
        "matches": [{"rule": "x"}, {"rule": "x"}],
        "output": [{"rule": "dose", "action": "mask", "start": 0, "end": 1}],
    },
    "context": {
        "n_ctx": 2048,
        "prompt_tokens": 1990,
        "turns_total": 5,
        "turns_in_window": 3,
        "dropped_turns": 2,
    },
}


def lines(facts: dict[str, Any]) -> list[str]:
    return [line.replace("\\", "") for line in describe(facts).split("  \n")]


def test_all_that_is_known_without_the_lineage() -> None:
    assert lines(FACTS) == [
        "**Model** a_b · gguf :orange-badge[not gated]",
        "**File** sha256 `cdcdcdcdcdcd`",
        "**Speed** 83.1 tokens/s, first token after 0.21 s, tokens: 58",
        "**Guard** off topic (x) · changes in the answer: 1",
        "**Context** 3 of 5 turns read, the oldest 2 dropped · 1,990 of 2,048 tokens",
    ]


def test_sampling_in_words() -> None:
    sampling = {"temperature": 0.7, "top_p": 0.95, "seed": None}
    assert lines(FACTS | {"sampling": sampling})[-1] == (
        "**Sampling** temperature 0.7, top-p 0.95, seed random"
    )
    assert "seed 0" in lines(FACTS | {"sampling": sampling | {"seed": 0}})[-1]
    assert "likeliest" in lines(FACTS | {"sampling": sampling | {"temperature": 0.0}})[-1]


def test_one_token_has_no_speed() -> None:
    timings = FACTS["timings"] | {"tokens_per_second": None}
    usage = FACTS["usage"] | {"completion_tokens": 1}
    assert (
        lines(FACTS | {"timings": timings, "usage": usage})[2]
        == "**Speed** first token after 0.21 s, tokens: 1"
    )


def test_a_lineage_goes_down_to_the_data() -> None:
    text = describe_lineage(
        [
            {"kind": "gate", "sha256": "a" * 64, "kl_mean": 0.0331, "agreement": 0.8791},
            {"kind": "dataset", "sha256": "b" * 64, "source": "x*y", "rows": {"train": 276}},
            {"kind": "something_new", "sha256": "c" * 64, "path": "new"},
        ]
    )
    assert text.replace("\\", "").split("\n") == [
        "1. **Gate** `aaaaaaaaaaaa` · KL 0.033 · same top token 87.9%",
        "1. **Data** `bbbbbbbbbbbb` · x*y · rows: train 276",
        "1. **something_new** `cccccccccccc`",
    ]


def test_a_bare_file_says_so() -> None:
    assert "not known" in describe_lineage([])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**bold** stays", "**bold** stays"),
        ("![a](http://x/y.png)", r"!\[a](http://x/y.png)"),
        ("![a][1]\n\n[1]: http://x/y.png", "!\\[a][1]\n\n[1]: http://x/y.png"),
        (r"$5 and \$6", r"\$5 and \$6"),
    ],
)
def test_images_and_mathematics_stay_text(text: str, expected: str) -> None:
    assert formatted(text) == expected


def test_plain_text_is_one_line_without_markup() -> None:
    assert plain("a *b*\n![c](d)") == r"a \*b\* \!\[c\]\(d\)"
