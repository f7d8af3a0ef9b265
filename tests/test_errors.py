"""What libraries say, as a part of one line."""

from __future__ import annotations

import pytest

from housecall.errors import reason_of


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("no such file", "no such file"),
        ("It broke.\n  Try again later.", "It broke. Try again later"),
        ("", "ValueError"),
        (f"Could not connect. {'More is said ' * 20}.", "Could not connect"),
        # The version number is no end of a sentence, and a long first sentence is not cut.
        (f"Needs 1.2 of {'a' * 250}. Then more.", f"Needs 1.2 of {'a' * 250}"),
    ],
)
def test_whole_sentences_are_kept(said: str, expected: str) -> None:
    assert reason_of(ValueError(said)) == expected


def test_a_sentence_without_end_is_cut_at_a_word_and_shows_it() -> None:
    found = reason_of(ValueError("again and " * 1000))
    assert len(found) <= 400
    assert found.endswith(("again ...", "and ..."))
