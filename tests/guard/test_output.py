"""The model's text, read as it streams."""

from __future__ import annotations

from housecall.guard import MedicalGuard
from housecall.guard.output import OutputPolicy, OutputReader
from housecall.types import Message

ANSWER = "Rest helps. Take 500 mg twice. See https://example.org/x for more. Bye"


def said(
    policy: OutputPolicy, answer: str, known: str = "", size: int = 3
) -> tuple[str, OutputReader]:
    reader = OutputReader(known, urgent=True, policy=policy)
    text = ""
    for start in range(0, len(answer), size):
        text += reader.read(answer[start : start + size])
        if reader.stopped:
            return text, reader
    return text + reader.close(), reader


def test_mark_lets_everything_pass_and_tells_where() -> None:
    text, reader = said("mark", ANSWER)
    assert text == ANSWER
    assert [(f["rule"], text[f["start"] : f["end"]]) for f in reader.findings] == [
        ("dose-not-given", "Take 500 mg twice."),
        ("source-not-given", "See https://example.org/x for more."),
    ]


def test_replace_takes_the_sentence_out_and_goes_on() -> None:
    text, reader = said("replace", ANSWER)
    assert "500" not in text
    assert "example.org" not in text
    assert text.startswith("Rest helps. [The safety filter took out a dose")
    assert text.endswith("Bye")
    places = [text[f["start"] : f["end"]] for f in reader.findings]
    assert all(place.startswith("[") and place.endswith("]") for place in places)


def test_cut_ends_the_answer() -> None:
    text, reader = said("cut", ANSWER)
    assert reader.stopped
    assert text.endswith("document.]")
    assert [finding["action"] for finding in reader.findings] == ["cut"]


def test_what_was_named_before_may_be_said() -> None:
    text, reader = said("cut", ANSWER, "my leaflet says 500 milligrams, https://example.org/x")
    assert (text, reader.findings) == (ANSWER, ())


def test_false_comfort_counts_after_an_alarm_only() -> None:
    answer = "You don't need to see a doctor."
    assert [f["rule"] for f in said("mark", answer)[1].findings] == ["false-comfort"]
    calm = OutputReader("", urgent=False, policy="mark")
    calm.read(answer)
    calm.close()
    assert calm.findings == ()


def test_water_and_blood_sugar_are_no_doses() -> None:
    answer = "Drink 200 ml of water. A blood sugar of 110 mg/dL is usual."
    assert said("mark", answer)[1].findings == ()


def test_the_guard_gives_a_reader_that_counts_from_its_own_message(guard: MedicalGuard) -> None:
    asked = [Message("user", "I have crushing chest pain")]
    result = guard.check(asked[-1].content)
    reader = guard.answer_reader(result, asked)
    reader.read("No need to worry. ")
    [finding] = reader.findings
    assert finding["start"] == len(result.message) + 2
