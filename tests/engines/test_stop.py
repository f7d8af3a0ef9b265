"""Stop strings in a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from housecall.engines.stop import StopStrings

few_letters = st.text("ab\n", max_size=12)


def shown(pieces: list[str], stop: list[str]) -> str:
    strings = StopStrings(stop)
    return "".join(map(strings.push, pieces)) + strings.flush()


@given(st.lists(few_letters), st.lists(few_letters, max_size=3))
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    pieces: list[str], stop: list[str]
) -> None:
    whole = "".join(pieces)
    text = shown(pieces, stop)
    assert whole.startswith(text)
    stops = [string for string in stop if string]
    assert not any(string in text for string in stops)
    if not any(string in whole for string in stops):
        assert text == whole


def test_text_that_only_begins_like_a_stop_string_is_held_back_and_then_shown() -> None:
    strings = StopStrings(["###"])
    assert [strings.push(piece) for piece in ("a#", "#", "b", "##")] == ["a", "", "##b", ""]
    assert strings.flush() == "##"
    assert not strings.found


def test_nothing_is_shown_after_a_stop_string() -> None:
    strings = StopStrings(["END"])
    assert strings.push("one EN") == "one "
    assert strings.push("D two") == ""
    assert strings.push(" three") + strings.flush() == ""
    assert strings.found
