"""Which language a message is in: by its script, then by its most common words. No download."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable

from housecall.guard.packs import Strict, read_yaml
from housecall.guard.text import Token, fold

UNKNOWN = "und"
"""ISO 639 for a language that was not recognised."""

_SCRIPTS = {
    "CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "DEVANAGARI": "hi",
    "ARABIC": "ar", "CYRILLIC": "ru", "GREEK": "el", "HEBREW": "he", "THAI": "th", "BENGALI": "bn",
    "TAMIL": "ta", "TELUGU": "te", "GUJARATI": "gu", "GURMUKHI": "pa", "KANNADA": "kn",
    "MALAYALAM": "ml", "GEORGIAN": "ka", "ARMENIAN": "hy", "AMHARIC": "am",
}  # fmt: skip
_LATIN = "LATIN"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LETTERS_LOOKED_AT = 2_000
_SURE_SHARE = 0.12
_FEW, _LONGEST_WORD = 4, 40
_ALSO = 0.7
"""A language with this share of the best one's points is read too: people mix them."""


class OtherLanguages(Strict):
    """``languages.yaml``: common words of languages that have no rules."""

    languages: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Detected:
    """The language of a message, and those whose rules should read it, which may be none."""

    language: str
    read: tuple[str, ...]


class Detector:
    """Recognises languages by their common words.

    A message of a few words, none of them common, is read in all languages of its script.
    """

    def __init__(self, packs: Mapping[str, Collection[str]], file: Traversable) -> None:
        others = read_yaml(file, OtherLanguages).languages
        self._packs = tuple(packs)
        self._latin = [name for name in packs if name not in _SCRIPTS.values()]
        lists = [*((n, packs[n]) for n in self._latin), *others.items()]
        holders: defaultdict[str, list[str]] = defaultdict(list)
        for name, words in lists:
            for word in dict.fromkeys(map(fold, words)):
                holders[word].append(name)
        self._points = {word: (1 / len(names), tuple(names)) for word, names in holders.items()}

    def detect(self, text: str, tokens: Sequence[Token]) -> Detected:
        """By script where that tells, else by the common words among ``tokens``."""
        scripts = _scripts(text)
        letters = sum(scripts.values())
        script, count = max(scripts.items(), key=lambda item: item[1], default=(_LATIN, 0))
        written = tuple(
            language
            for name, language in _SCRIPTS.items()
            if scripts[name] >= 2 and language in self._packs
        )
        if "HIRAGANA" in scripts or "KATAKANA" in scripts:
            script, written = "HIRAGANA", ()
        if script != _LATIN and count * 2 > letters:
            return Detected(_SCRIPTS.get(script, UNKNOWN), written)
        points = self._count(token.word for token in tokens)
        best = max(points.values(), default=0.0)
        near = [name for name, count in points.items() if count >= _ALSO * best]
        if not points and _may_be_any(tokens):
            near = self._latin
        read = [name for name in self._latin if name in near or name == self._latin[0]]
        language = UNKNOWN
        if best >= max(1.0, _SURE_SHARE * len(tokens)):
            language = max(near, key=lambda name: (points[name], name in self._packs))
        return Detected(language, (*read, *written))

    def _count(self, words: Iterable[str]) -> Mapping[str, float]:
        points: defaultdict[str, float] = defaultdict(float)
        for word in words:
            if known := self._points.get(word):
                for name in known[1]:
                    points[name] += known[0]
        return points


def _may_be_any(tokens: Sequence[Token]) -> bool:
    """Whether these may be words of any language: in more of them a common one would be."""
    words = [token.word for token in tokens if len(token.word) <= _LONGEST_WORD]
    return 0 < len(words) <= _FEW


def _scripts(text: str) -> Counter[str]:
    """Letters by script, of the first part of a long text."""
    first = text[:_LETTERS_LOOKED_AT]
    if first.isascii():
        return Counter({_LATIN: 1})  # or no letters at all, which is the same here
    found = Counter(filter(None, map(_script, _NOT_ASCII.findall(first))))
    found[_LATIN] = max(0, sum(map(str.isalpha, first)) - sum(found.values()) + found[_LATIN])
    return found


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    if not letter.isalpha():
        return ""
    return unicodedata.name(letter, "").partition(" ")[0]
