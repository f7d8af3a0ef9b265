"""The cleaning rules: what each mends, what each rejects, and what none of them may touch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ftfy", reason="cleaning data needs the extra train")

from housecall.cleaning import check_shape, clean
from housecall.cleaning.base import Fault, Messages
from housecall.cleaning.characters import mend_backslashes, mend_encoding, strip_html, tidy_space
from housecall.cleaning.rules import RULES
from housecall.cleaning.site import strip_attachments, strip_site
from housecall.types import Message

GOOD = "Rest, drink plenty of water and see a doctor if the fever lasts."


# Curly quotation marks, a ligature and wide letters.
OWN = "\u2018curly\u2019 \ufb01ne \uff26\uff35\uff2c\uff2c"


def asked(answer: str, question: str = "I have had a fever for two days.") -> Messages:
    return Message("user", question), Message("assistant", answer)


def fault_of(answer: str) -> str | None:
    return clean(asked(answer)).fault


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Itâ€™s a cafÃ©", "It\u2019s a café"),
        ("a\u200bb \x1b[31mred\x1b[0m \x07bell", "a\u200bb red bell"),
        ("two\r\nlines\u2028three", "two\nlines\nthree"),
        (OWN, OWN),
        ("dosis de 5 µg según prescripción", "dosis de 5 µg según prescripción"),
    ],
)
def test_encodings_are_mended_and_the_writers_own_characters_stay(text: str, mended: str) -> None:
    assert mend_encoding(text) == mended


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (r"My child\s fever, I\ve it, don\t worry", "My child's fever, I've it, don't worry"),
        (r'I am 5\4" tall, he is 5\2\\.', "I am 5'4\" tall, he is 5'2\"."),
        (r"my \bad eye\ hurts", 'my "bad eye" hurts'),
        (r"\x80\x9cbad eye\x80\x9d", "“bad eye”"),
        (r"6.2 \xce\xbcU/ml at 120\xb0", "6.2 μU/ml at 120°"),
        (r"Graves\ disease", "Graves' disease"),
        (r"half \xe2\x80 a character", r"half \xe2\x80 a character"),
        ("no backslash", "no backslash"),
    ],
)  # fmt: skip
def test_quotation_marks_that_became_backslashes_are_mended(text: str, mended: str) -> None:
    assert mend_backslashes(text) == mended


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("<p>One</p><p>Two<br/>Three</p>", "One\nTwo\nThree\n"),
        ("rest &amp; water&nbsp;now &#8217;s", "rest & water now \u2019s"),
        ('<a href="http://x.example">link</a> <B>bold</B>', "link bold"),
        ("a<script>alert('<b>')</script>b<!-- no -->c", "a b c"),
        ("BP <140 and >90, <b", "BP <140 and >90, <b"),
        ("5 < 6 & 7 > 3; <unknown> stays", "5 < 6 & 7 > 3; <unknown> stays"),
    ],
)
def test_html_goes_and_comparisons_stay(text: str, mended: str) -> None:
    assert strip_html(text) == mended


def test_white_space_is_tidied() -> None:
    assert tidy_space("  a \t b \n\n \n\n c\nd  ") == "a b\n\nc\nd"


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (f"Hello, Welcome to Chat Doctor forum. {GOOD}", f"Hello. {GOOD}"),
        (f"Hi, Welcome back to ChatDoctor. {GOOD}", f"Hi. {GOOD}"),
        (f"Welcome to iclliniq.com. {GOOD}", GOOD),
        (f"Thanks for your question on Chat Doctor. {GOOD}", GOOD),
        (f"Thank you for consulting in Chat Doctor. {GOOD}", GOOD),
        (f"Good evening. I am Chat Doctor answering your query. {GOOD}", f"Good evening. {GOOD}"),
        (f"{GOOD} Regards, Chat Doctor.", GOOD),
        (f"{GOOD} For more information consult a general practitioner online", GOOD),
        (f"{GOOD} If it lasts, consult a family physician online", GOOD),
        (f"{GOOD} Revert back with the reports to an ENT otolaryngologist online.-->", GOOD),
        (f"{GOOD} Thanks For more information consult a dentist onilne", f"{GOOD} Thanks"),
        (GOOD, GOOD),
        ("Buy it online or ask your pharmacist.", "Buy it online or ask your pharmacist."),
    ],
)  # fmt: skip
def test_phrases_of_the_site_go(text: str, mended: str) -> None:
    assert tidy_space(strip_site(text)) == mended


def test_notes_on_attachments_go() -> None:
    text = "I saw the scan (attachment removed to protect patient identity). Rest (at home)."
    assert strip_attachments(text) == "I saw the scan. Rest (at home)."


@pytest.mark.parametrize(
    "answer",
    [
        "Keep the skin moist and use hy ChatDoctor.  Take care.",
        "A chest drain helps, so get done pigtail Chat Doctor. Also talk with him.",
        "Welcome to Chat Doctor. It may be a withdrawal syn ChatDoctor. Please rest well.",
        "This is common in chil ChatDoctor.",
        "Answer my questions to an an ChatDoctor. It will then be clear what you need to do.",
    ],
)
def test_answers_with_overwritten_words_are_rejected(answer: str) -> None:
    assert fault_of(answer) == "words overwritten by ChatDoctor"


REFERS = "only refers to a doctor"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("It is asthma.", "tiny answer"),
        ("I have read your query. For more information consult a dentist online", REFERS),
        ("Hi. Please consult your doctor. Take care.", REFERS),
        ("Rest for two days and if the fever lasts then you should", "cut in mid-sentence"),
        ("Rest for two days, drink plenty of water, and eat well,", "cut in mid-sentence"),
        ("I would like to help, so please answer the following questions:", "a list is missing"),
        ("I suggest the following medicines: Take care and stay healthy.", "a list is missing"),
        (f"{GOOD} Please try the following steps for a week.", "a list is missing"),
        (f"{GOOD} (Note: the prompt allows one back and forth.)", "speaks of the exercise"),
        (f"{GOOD} (End of conversation)", "speaks of the exercise"),
        (f"{GOOD} It was caf\ufffd.", "broken characters"),
        (r"It reaches 5 \xe2\x80 of what it was before, so rest well.", "broken characters"),
        ("<br><p> </p>", "tiny answer"),
        (GOOD, None),
        (f"{GOOD} Wish you good health", None),
        (f"{GOOD} Thanks and regards", None),
        ("Do these:\n1. Rest for two days\n2. Drink plenty of water", None),
        ("Take the following: 1. Water with every meal. 2. Rest at night.", None),
        ("Please see your doctor soon, since a fever for so long needs a blood test.", None),
        ('She said "rest and drink, and call if you feel worse."', None),
        ("An evaluation (blood count, thyroid and iron) should find the cause (or not).", None),
    ],
)  # fmt: skip
def test_faults(answer: str, fault: str | None) -> None:
    assert fault_of(answer) == fault


def test_every_turn_is_judged() -> None:
    messages = (*asked(GOOD), *asked("Then take hy ChatDoctor. It helps most people well."))
    assert clean(messages).fault == "words overwritten by ChatDoctor"


def test_a_short_turn_of_a_longer_talk_is_no_fault() -> None:
    assert clean((*asked(GOOD), *asked("Yes, it does."))).fault is None


def test_a_dialogue_tells_which_rules_changed_it() -> None:
    found = clean(asked(f"Hi, Welcome to ChatDoctor.  {GOOD}", "I\\ve a <b>fever</b>."))
    assert found.fault is None
    assert found.messages == asked(f"Hi. {GOOD}", "I've a fever.")
    assert found.mended == (
        "quotation marks mended",
        "HTML removed",
        "phrases of the site removed",
        "white space tidied",
    )


def test_a_question_that_mending_leaves_empty_is_rejected() -> None:
    assert clean(asked(GOOD, "<p></p>")).fault == "an empty turn"


@pytest.mark.parametrize(
    ("roles", "fault"),
    [
        ("user assistant user assistant", None),
        ("system user assistant", None),
        ("", "alternate"),
        ("assistant user", "alternate"),
        ("user user", "alternate"),
        ("user assistant user", "alternate"),
        ("user system assistant", "not the first"),
    ],
)
def test_the_shape_of_a_dialogue(roles: str, fault: str | None) -> None:
    found = check_shape([Message(role, "x") for role in roles.split()])  # type: ignore[arg-type]
    assert found is None if fault is None else fault in str(found)


# Pieces in which the rules look for something, so that chance makes what they must bear.
PIECES = st.sampled_from(
    [
        *("Chat Doctor", "ChatDoctor.", "welcome to", "thanks for", "consult a", "online", "\\s"),
        *("\\x80\\x9c", "<b>", "</p>", "&amp;", "&lt;", "<!--", "following:", "the", "â€™", "\n"),
        *(".", "?", " ", "1.", "(", ")", "(attachment removed", "\\", "I am", "5\\4", "Dr."),
    ]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=40).map(" ".join))
def test_what_is_kept_is_clean_already(answer: str) -> None:
    found = clean(asked(f"{GOOD} {answer}"))
    if found.fault is None:
        again = clean(found.messages)
        assert again.fault is None
        assert "chatdoctor" not in str(again.messages).lower().replace(" ", "")


PIECES_TO_REPEAT = ("<a ", "\\", "consult ", "[", "Welcome to ", "thanks for a ", "\n ", "<!--",
                    "<script>", "following ", "a ", "&amp", "I am ", "5\\")  # fmt: skip


@pytest.mark.parametrize("piece", PIECES_TO_REPEAT)
@pytest.mark.timeout(60)
def test_no_rule_runs_away_on_a_long_text(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    for rule in RULES:
        if isinstance(rule, Fault):
            rule.found(text)
        else:
            rule.change(text)
