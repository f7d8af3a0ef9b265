"""The second stage: what it may do, and what it may never do."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from housecall.errors import ConfigError
from housecall.guard import MedicalGuard
from housecall.guard.features import PlayedDown, features, words_to_weigh
from housecall.guard.learned import LearnedFile, LearnedReader, load_learned
from housecall.guard.text import split
from housecall.guard.weights import Weights, from_table, to_table
from housecall.types import Message

PACKS = Path(str(resources.files("housecall.guard") / "packs"))
FILE = PACKS / "en" / "learned.json"
PLAYED_DOWN = PlayedDown(
    ["it's probably nothing, but", "it's probably nothing and i want no advice but"]
)


def reader(
    weights: dict[str, int], scale: float = 1.0, crisis_alarm_at: float = 90.0
) -> LearnedReader:
    """A reader that knows a few words only."""
    return LearnedReader(
        LearnedFile(
            trained_on="", scale=scale, bias=0.0, crisis_scale=1.0, crisis_bias=-0.5,
            crisis_from=0.0, crisis_alarm_at=crisis_alarm_at,
            alarm_at=0.2, shortest_doubted=10,
            rule_weights={"emergency": 0.25, "crisis": 1.0, "lowered": 0.0},
            weights=to_table(weights), crisis_weights=to_table({"gone": 9}),
        ),
        PLAYED_DOWN,
    )  # fmt: skip


def flat(weights: Weights) -> dict[str, int]:
    """The weights by the names that the trainer gives them."""
    found = dict(weights.alone)
    for between, pairs in zip(" ~_", weights[1:], strict=True):
        for first, others in pairs.items():
            found |= {f"{first}{between}{other}": weight for other, weight in others.items()}
    return found


def guard_with(learned: LearnedReader) -> MedicalGuard:
    """The shipped rules with another second stage."""
    guard = MedicalGuard.load("US", learned=False)
    guard._rules._readers["en"] = learned
    return guard


ALARMING, HARMLESS = {"plums": 90}, {"pancakes": -90, "pancake": -90}


def test_it_raises_an_alarm_that_no_rule_raised() -> None:
    text = "my garden is full of plums today and the sun is out"
    result = guard_with(reader(ALARMING)).check(text)
    (match,) = result.matches
    assert (result.level, match.rule, match.assertion) == (
        "emergency",
        "learned:emergency",
        "present",
    )
    assert "plums" in match.text
    assert match.text == text[match.start : match.end]
    assert "911" in result.message
    assert guard_with(reader({})).check(text).level == "none"


def test_it_tells_a_crisis_from_an_emergency() -> None:
    result = guard_with(reader(ALARMING)).check("the plums are gone and so am i in the end")
    assert (result.level, result.matches[0].rule) == ("crisis", "learned:crisis")


def test_the_crisis_sum_alarms_by_itself_and_keeps_what_the_other_would_withdraw() -> None:
    guard = guard_with(reader(HARMLESS, crisis_alarm_at=1.0))
    told = "by the time you read this the lights are out and i am gone"
    result = guard.check(told)
    (match,) = result.matches
    assert (result.level, match.rule) == ("crisis", "learned:crisis")
    assert "gone" in match.text
    assert guard_with(reader(HARMLESS)).check(told).level == "none"
    kept = "pancakes, pancakes and chest pain, then pancakes and i am gone gone gone"
    assert guard.check(kept).level == "emergency"
    assert guard_with(reader(HARMLESS)).check(kept).level == "none"


def test_it_withdraws_an_emergency_and_says_so() -> None:
    text = "pancakes, pancakes and chest pain, then pancakes and pancakes and pancakes"
    assert guard_with(reader({})).check(text).level == "emergency"
    result = guard_with(reader(HARMLESS)).check(text)
    assert (result.level, result.message) == ("none", "")
    assert {"chest-pain", "learned:harmless"} <= {match.rule for match in result.matches}


def test_a_crisis_is_withdrawn_on_far_less_than_an_emergency() -> None:
    emergency = "pancakes, pancakes and chest pain, then pancakes again and pancakes"
    crisis = "pancakes, pancakes and i want to be dead, then pancakes again and pancakes"
    for scale, expected in ((0.0001, ["emergency", "crisis"]), (0.008, ["none", "crisis"])):
        guard = guard_with(reader(HARMLESS, scale))
        assert [guard.check(text).level for text in (emergency, crisis)] == expected
    assert guard_with(reader(HARMLESS)).check(crisis).level == "none"


def test_it_never_withdraws_a_request_for_a_method() -> None:
    text = "pancakes, pancakes and where do i get pills to kill myself, pancakes and pancakes"
    assert guard_with(reader(HARMLESS)).check(text).level == "crisis"


def test_it_withdraws_nothing_of_another_language() -> None:
    text = "pancakes, pancakes, me duele mucho el pecho y no puedo respirar, pancakes pancakes"
    assert guard_with(reader(HARMLESS)).check(text).level == "emergency"


def test_what_is_withdrawn_is_not_beside_a_question_about_a_dose() -> None:
    text = "pancakes, chest pain, pancakes pancakes, how much ibuprofen may i take, pancakes"
    assert guard_with(reader({})).check(text).level == "emergency"
    assert guard_with(reader(HARMLESS)).check(text).level == "emergency"


def test_it_withdraws_nothing_that_earlier_messages_led_to() -> None:
    before = [Message("user", "I have a bad headache and a high fever")]
    text = "pancakes pancakes pancakes and now my neck is stiff"
    assert guard_with(reader(HARMLESS)).check(text, before).level == "emergency"


def test_it_withdraws_nothing_from_a_message_of_a_few_words() -> None:
    assert guard_with(reader(HARMLESS)).check("pancakes and chest pain").level == "emergency"


def test_playing_down_is_not_weighed() -> None:
    plain = words_to_weigh(split("i cant lift my arm"), PLAYED_DOWN)[0]
    for played_down in (
        "It's probably nothing, but",
        "It's probably nothing and I want no advice but",
    ):
        text = f"{played_down} I can't lift my arm"
        assert words_to_weigh(split(text), PLAYED_DOWN)[0] == plain


def test_a_red_flag_in_a_long_story_counts() -> None:
    filler = " ".join(f"pancakes in{n}" for n in range(120)) + " "
    learned = reader(ALARMING | HARMLESS | {"pancakes": -1})
    assert learned.read(split(filler + "plums " + filler)).verdict == "alarm"
    assert learned.read(split(filler)).verdict != "alarm"


def test_what_is_summed_is_what_was_trained_on() -> None:
    """The quick running sums of the reader are the features that the trainer counts."""
    file = LearnedFile.model_validate(json.loads(FILE.read_text(encoding="utf-8")))
    words, _ = words_to_weigh(
        split("Since 3 am he's 38.9 hot, and can't keep a sip of water down at all"),
        PLAYED_DOWN,
    )
    weights = flat(from_table(file.weights))
    total = sum(weights.get(feature, 0) for feature in features(words))
    assert LearnedReader(file, PLAYED_DOWN)._weights.sums(words)[-1] == total != 0


def test_a_word_said_again_and_again_is_not_weighed() -> None:
    learned = reader(ALARMING)
    assert learned.read(split("plums " * 40)).verdict == "harmless"
    assert learned.read(split("plums " * 40), {"emergency"}).verdict == "alarm"
    assert learned.read(split("pears figs " * 3 + "plums")).verdict == "alarm"


@pytest.mark.parametrize(
    ("urgent", "harmless", "language"),
    [
        ("a mi viejo se le cuelga la mitad de la boca y habla raro",
         "a mi viejo se le sale la camisa del pantalón y habla de fútbol", "es"),
        ("Opa lallt seit dem Frühstück und die Tasse fällt ihm immer aus der linken Hand",
         "Opa lacht seit dem Frühstück, die Tasse mit dem Spruch gefällt ihm richtig gut", "de"),
    ],
)  # fmt: skip
def test_each_language_has_its_own_stage(urgent: str, harmless: str, language: str) -> None:
    guard = MedicalGuard.load("US")
    assert guard._rules.reader(language) is not guard._rules.reader("en")
    found, quiet = guard.check(urgent), guard.check(harmless)
    assert (found.level, found.language) == ("emergency", language)
    assert (quiet.level, quiet.language) == ("none", language)


def test_a_language_without_a_stage_is_read_by_none() -> None:
    result = MedicalGuard.load("US").check("dziecko ma wysypkę na brzuchu od dwóch dni")
    assert (result.level, result.matches) == ("none", ())


def test_the_shipped_stage_is_on_deterministic_and_can_be_switched_off() -> None:
    on, off = MedicalGuard.load("US"), MedicalGuard.load("US", learned=False)
    assert on.version == MedicalGuard.load("GB").version != off.version
    text = "nan went quiet over her tea, the cup slid out of her fingers and her mouth hangs left"
    assert on.check(text) == on.check(text)
    assert not any(match.rule.startswith("learned:") for match in off.check(text).matches)


def test_a_table_comes_back_as_it_was_and_a_torn_one_is_refused() -> None:
    weights = {"two words": -3, "a~b": 127, "a~c": 2, "<pie": 1, "ie_": 7, "e_ca": -128, "_ca": 5}
    table = to_table(weights)
    assert flat(from_table(table)) == weights
    assert flat(from_table(to_table({}))) == {}
    for torn in (
        {"alone": ""},
        {"alone": table.alone + "\nmore"},
        {"distant": ""},
        {"numbers": ""},
    ):
        with pytest.raises(ValueError, match="numbers"):
            from_table(table.model_copy(update=torn))


@pytest.mark.parametrize("content", ["", "{", "{}", '{"weights": 3}'])
def test_weights_that_can_not_be_read_are_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "learned.json").write_text(content)
    with pytest.raises(ConfigError, match=r"guard file learned\.json: .*reinstall housecall"):
        load_learned(tmp_path / "learned.json", ())
    with pytest.raises(ConfigError, match=r"guard file nothing\.json"):
        load_learned(tmp_path / "nothing.json", ())
