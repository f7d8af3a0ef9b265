"""Finds the words by which the guard recognises a language, in the messages written for training.

    python benchmarks/guard_words.py            # how well half of the messages tells the other half
    python benchmarks/guard_words.py --write    # or write guard/packs/LANGUAGE/common_words.txt

A word is taken that stands in 0.15 % of a language's messages or more, and five times as often as
in those of any other language in Latin letters; the commonest 800 of them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from importlib import resources

from guard_texts import PACKS, rows

from housecall.guard.languages import Detector
from housecall.guard.packs import Language, read_yaml
from housecall.guard.text import Token, split

LATIN = ("en", "es", "fr", "de", "pt", "hi-Latn", "id")
LEAST, TIMES, MOST = 0.0015, 5, 800

Messages = dict[str, list[list[Token]]]


def common(messages: Messages) -> dict[str, list[str]]:
    """By language the words that tell it from the others, the commonest first."""
    shares: dict[str, dict[str, float]] = {}
    for language, found in messages.items():
        counts = Counter(word for tokens in found for word in {token.word for token in tokens})
        shares[language] = {word: count / len(found) for word, count in counts.items()}
    words = {}
    for language, own in shares.items():
        others = [share for name, share in shares.items() if name != language]
        kept = [
            word
            for word, share in sorted(own.items(), key=lambda item: (-item[1], item[0]))
            if len(word) > 1
            and word.replace("'", "").isalpha()
            and share >= LEAST
            and share >= TIMES * max(other.get(word, 0.0) for other in others)
        ]
        words[language] = kept[:MOST]
    return words


def main() -> None:
    """Print how well a language is recognised, or write the words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the lists")
    texts = {name: [split(row["text"]) for row in rows(name)] for name in LATIN}
    if parser.parse_args().write:
        for language, words in common(texts).items():
            head = (
                "# Words to recognise the language by, folded; made by benchmarks/guard_words.py."
            )
            lines = "\n".join([head, *words]) + "\n"
            (PACKS / language / "common_words.txt").write_text(lines, encoding="utf-8")
        return
    words = common({name: found[::2] for name, found in texts.items()})
    known = {
        language: [*read_yaml(PACKS / language / "language.yaml", Language).function_words, *more]
        for language, more in words.items()
    }
    detector = Detector(known, resources.files("housecall.guard") / "languages.yaml")
    for language, found in texts.items():
        told = Counter(
            detector.detect(" ".join(token.word for token in tokens), tokens).language
            for tokens in found[1::2]
        )
        print(f"{language:8}{len(found[1::2]):6} messages: ", end="")
        print(", ".join(f"{name} {n / told.total():.1%}" for name, n in told.most_common(4)))


if __name__ == "__main__":
    main()
