"""All languages' rules and weights: the first one's at once, the others' when a message needs them.

Compiling all packs takes longer than all else when the guard is loaded, and most conversations are
in one language. Nothing wrong may stay unseen for that: packs wait only if the tests have compiled
them, by the hash in ``packs/verified.txt``. If one was edited, all are compiled at once.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from threading import Lock

from housecall.guard.learned import LearnedReader, load_learned
from housecall.guard.packs import Language, read_words, read_yaml
from housecall.guard.rules import RuleSet, load_rules
from housecall.guard.text import fold

_FILES = (".yaml", ".txt", ".json")

WEIGHTS = "learned.json"
"""The file with a language's second stage, which all but the first language may lack."""


class RuleSets:
    """Rules by language. ``accept`` sees each language's before they are used, and may raise.

    Without ``learned`` no second stage is read. Raises ConfigError for what is wrong in a pack.
    """

    def __init__(
        self,
        folders: Sequence[Traversable],
        accept: Callable[[RuleSet], None],
        *,
        at_once: bool,
        learned: bool = True,
    ) -> None:
        self._accept = accept
        self._learned = learned
        self._compiled: dict[str, RuleSet] = {}
        self._readers: dict[str, LearnedReader] = {}
        self._lock = Lock()
        with uncollected():
            languages = [read_yaml(one / "language.yaml", Language) for one in folders]
            self._folders = {
                one.language: folder for one, folder in zip(languages, folders, strict=True)
            }
            self.words = {
                language: frozenset(
                    map(fold, (*one.function_words, *read_words(folder / "common_words.txt")))
                )
                for one, (language, folder) in zip(languages, self._folders.items(), strict=True)
            }
            """By language the words to recognise it by."""
            self._played_down = {one.language: one.played_down for one in languages}
            first, *others = self._folders
            self._compile(first)
            for language in others if at_once else ():
                self._compile(language)

    def __getitem__(self, language: str) -> RuleSet:
        """The rules of a language, compiled now if they are not yet."""
        found = self._compiled.get(language)
        if found is None:
            with self._lock, uncollected():
                found = self._compiled.get(language) or self._compile(language)
        return found

    def reader(self, language: str) -> LearnedReader | None:
        """The second stage of a language that has rules, if there is one."""
        return self._readers.get(self[language].language)

    def __contains__(self, language: str) -> bool:
        return language in self._folders

    def _compile(self, language: str) -> RuleSet:
        folder = self._folders[language]
        rules = load_rules(folder)
        self._accept(rules)
        weights = folder / WEIGHTS
        if self._learned and (weights.is_file() or not self._compiled):
            self._readers[language] = load_learned(weights, self._played_down[language])
        self._compiled[language] = rules
        return rules


def hash_of(places: Iterable[Traversable], besides: Collection[str] = ()) -> str:
    """SHA-256 of files and of what is in folders, independent of where they are installed.

    ``besides`` names files that are left out.
    """
    digest = hashlib.sha256()
    for place in places:
        files = [place] if place.is_file() else sorted(place.iterdir(), key=lambda f: f.name)
        for file in files:
            if file.name.endswith(_FILES) and file.name not in besides:
                digest.update(f"{place.name}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection: all that is made stays, and looking it over costs a fifth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
