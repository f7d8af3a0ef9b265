"""The data report: what a prepared data set holds, what was left out of it, and why."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from housecall.sieve import Kept

_OTHER = "no topic found"
_BINS = 12
_WIDTH = 40
_ROUND = (1, 2, 5)
_WORD = re.compile(r"\w+")
TOPIC_METHOD = (
    "Words of the dialogues looked up in data/topics.yaml; a row counts for the topic of which "
    "most words stand in it. A count of words, not a judgement: of the 81 rows of "
    "builtin:starter that have one clear specialty, it names that one for 62."
)


class RowFacts:
    """What the report tells of each kept row, a few bytes a row."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.tokens = array("L")
        self.answer_words = array("L")
        self.turns = array("L")
        self.topics = array("B")

    def add(self, row: Kept) -> None:
        """Take down a row."""
        self.numbers.append(row.number)
        self.tokens.append(row.tokens)
        self.answer_words.append(len(row.text("assistant").split()))
        self.turns.append(sum(m.role == "user" for m in row.messages))
        self.topics.append(topic_number(row.text("user") + "\n" + row.text("assistant")))


def describe(facts: RowFacts, rows: Sequence[int]) -> dict[str, Any]:
    """Distributions over the chosen rows."""
    names = [*_topics(), _OTHER]
    topics = Counter(names[facts.topics[i]] for i in rows)
    return {
        "tokens": distribution([facts.tokens[i] for i in rows]),
        "answer_words": distribution([facts.answer_words[i] for i in rows]),
        "turns": {str(k): v for k, v in sorted(Counter(facts.turns[i] for i in rows).items())},
        "topics": dict(sorted(topics.items(), key=lambda item: (-item[1], item[0]))),
        "topic_method": TOPIC_METHOD,
    }


def distribution(values: Sequence[int]) -> dict[str, Any]:
    """Least, quantiles, mean, greatest, and a histogram with bins of a round width."""
    ordered = sorted(values)
    last = len(ordered) - 1
    width = _bin_width(ordered[-1])
    counts = Counter(value // width for value in ordered)
    return {
        "least": ordered[0],
        "median": ordered[last // 2],
        "mean": round(sum(ordered) / len(ordered), 1),
        "p95": ordered[round(last * 0.95)],
        "greatest": ordered[-1],
        "histogram": [
            {"from": i * width, "to": (i + 1) * width - 1, "rows": counts[i]}
            for i in range(ordered[0] // width, ordered[-1] // width + 1)
        ],
    }


def topic_number(dialogue: str) -> int:
    """The place of a dialogue's topic in the table; one past the last for none."""
    text = dialogue.lower()
    topics = _topics()
    hits = [0] * len(topics)
    for word in _WORD.findall(text):
        for place in _topics_of_word(word):
            hits[place] += 1
    for place, topic in enumerate(topics.values()):
        hits[place] += topic.count_phrases(text)
    best = max(hits)
    return hits.index(best) if best else len(hits)


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    rows = report["rows"]
    parts = [
        f"# Data report: {report['source']}",
        f"{rows['kept']:,} of {rows['read']:,} rows kept; seed {report['seed']}; near-duplicates "
        f"from a similarity of {report['near_duplicate']}.",
        _table("Splits", ("split", "rows", "tokens"), _splits(report["splits"])),
        _table("Rows left out (all are in rejected.jsonl)", ("why", "rows"), rows["rejected"]),
        _table("Rows mended, whether they stayed or not", ("what", "rows"), report["mended"]),
        _table("Personal data masked", ("kind", "places"), report["masked"]),
        f"## Like rows\n\n{report['clusters']['count']:,} clusters of rows with like questions or "
        f"answers, the largest of {report['clusters']['largest']:,} rows; a cluster lies in one "
        "split.",
        _histogram("Tokens a row, system prompt and template included", report["tokens"]),
        _histogram("Words a row's answers have", report["answer_words"]),
        _table("Questions a row", ("questions", "rows"), report["turns"]),
        _bars("Topics", report["topics"]) + f"\n\n{report['topic_method']}",
    ]
    return "\n\n".join(parts) + "\n"


def _splits(splits: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    return {name: f"{part['rows']:,} | {part['tokens']:,}" for name, part in splits.items()}


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Any]) -> str:
    if not rows:
        return f"## {title}\n\nnone"
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    values = {name: f"{v:,}" if isinstance(v, int) else v for name, v in rows.items()}
    lines = (f"| {name} | {value} |" for name, value in values.items())
    return "\n".join([f"## {title}\n", head, *lines])


def _histogram(title: str, values: Mapping[str, Any]) -> str:
    bars = {f"{b['from']:>6,} - {b['to']:>6,}": b["rows"] for b in values["histogram"]}
    facts = ", ".join(f"{name} {values[name]:,}" for name in values if name != "histogram")
    return f"{_bars(title, bars)}\n\n{facts}"


def _bars(title: str, counts: Mapping[str, int]) -> str:
    most = max(counts.values())
    width = max(map(len, counts))
    lines = [
        f"{name:<{width}}  {count:>7,}  {'#' * -(-count * _WIDTH // most)}"
        for name, count in counts.items()
    ]
    return "\n".join([f"## {title}\n", "```", *lines, "```"])


def _bin_width(greatest: int) -> int:
    """The least of 1, 2, 5, 10, 20 ... that needs no more than 12 bins."""
    power = 1
    while True:
        for step in _ROUND:
            if greatest // (step * power) < _BINS:
                return step * power
        power *= 10


@dataclass(frozen=True, slots=True)
class _Topic:
    """Its words, and its phrases, each with the part of it that a text is first searched for.

    One pattern of all of them would be tried at each word of a text, which took a fifth of the
    time of preparing a data set.
    """

    words: re.Pattern[str]
    phrases: tuple[tuple[str, re.Pattern[str]], ...]

    def count_phrases(self, text: str) -> int:
        """How often a phrase stands in a text in lower case."""
        return sum(len(found.findall(text)) for part, found in self.phrases if part in text)


@lru_cache(maxsize=1)
def _topics() -> dict[str, _Topic]:
    file = resources.files("housecall") / "data" / "topics.yaml"
    table: dict[str, list[str]] = yaml.safe_load(file.read_text("utf-8"))
    return {
        name: _Topic(
            _pattern([term for term in terms if _is_word(term)]),
            tuple((term.rstrip("*"), _pattern([term])) for term in terms if not _is_word(term)),
        )
        for name, terms in table.items()
    }


@lru_cache(maxsize=1 << 16)  # a few megabytes; most words of a text have been seen before
def _topics_of_word(word: str) -> tuple[int, ...]:
    return tuple(
        place for place, topic in enumerate(_topics().values()) if topic.words.fullmatch(word)
    )


def _pattern(terms: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, terms))})\b".replace(r"\*", r"\w*"))


def _is_word(term: str) -> bool:
    return term.rstrip("*").isalnum()
