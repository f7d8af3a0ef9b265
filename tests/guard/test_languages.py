"""Which language a message is in, whose rules read it, and what is said of the others."""

from __future__ import annotations

import pytest

from housecall.guard import MedicalGuard

GUARD = MedicalGuard.load("ES")


@pytest.mark.parametrize(
    ("text", "language", "covered"),
    [
        ("My head hurts and I feel sick", "en", True),
        ("chest pain", "en", True),
        ("ibuprofen 400", "und", True),
        ("Ich habe seit gestern starke Schmerzen in der Brust", "de", True),
        ("me duele la cabeza desde ayer y no sé qué hacer", "es", True),
        ("j'ai mal à la tête depuis hier et je ne sais pas quoi faire", "fr", True),
        ("minha cabeça está doendo desde ontem e não sei o que fazer", "pt", True),
        ("kepala saya sakit dari kemarin dan tidak tahu apa yang harus dilakukan", "id", True),
        ("mere sir mein dard hai aur bukhar bhi hai", "hi-Latn", True),
        ("\u0938\u093f\u0930 \u092e\u0947\u0902 \u0926\u0930\u094d\u0926", "hi", True),
        ("\u6211\u5934\u75bc", "zh", True),
        ("ho mal di testa da ieri e non so che cosa fare", "it", False),
        ("\u0443 \u043c\u0435\u043d\u044f \u0431\u043e\u043b\u0438\u0442", "ru", False),
        ("\u982d\u304c\u75db\u3044\u3067\u3059", "ja", False),
        ("Fejem faj tegnap ota nagyon rossz", "und", False),
        ("", "und", True),
    ],
)  # fmt: skip
def test_language(text: str, language: str, covered: bool) -> None:
    result = GUARD.check(text)
    assert (result.language, result.covered) == (language, covered)


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("No puedo respirar", "emergency", "llame ya al 112"),
        ("Ya no quiero vivir", "crisis", "Hable ahora"),
        ("je ne peux plus respirer", "emergency", "appelez"),
        ("\u4e0d\u60f3\u6d3b\u4e86", "crisis", "112"),
        ("I can't breathe", "emergency", "call 112 now"),
    ],
)
def test_the_message_is_in_the_language_of_the_user(text: str, level: str, words: str) -> None:
    result = GUARD.check(text)
    assert result.level == level
    assert words in result.message


def test_people_mix_languages() -> None:
    assert GUARD.check("please help, mi hijo no puede respirar").level == "emergency"
    assert GUARD.check("\u92ed my dad can't breathe \u8001\u7238\u6655\u5012").level == "emergency"
