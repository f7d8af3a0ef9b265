"""A pack that is wrong is refused, with its file, its rule and what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from housecall.commands.base import build_parts, remote_model
from housecall.errors import ConfigError
from housecall.guard import MedicalGuard
from housecall.guard.medical import _check_messages
from housecall.guard.messages import load_messages
from housecall.guard.rule_sets import RuleSets, hash_of
from housecall.settings import Settings

SHIPPED = Path(str(resources.files("housecall.guard")))

RULE = """
pack: extra
review: test
rules:
  - id: hiccups
    level: emergency
    title: Hiccups
    why: For the test.
    source: none
    sign: hiccups
    patterns: [hiccups]
    examples: {positive: [I have hiccups], negative: [I am well]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "packs", tmp_path / "packs")
    for name in ("messages.yaml", "languages.yaml"):
        shutil.copy(SHIPPED / name, tmp_path)
    return tmp_path


def extra(folder: Path, text: str) -> Path:
    file = folder / "packs" / "en" / "extra.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        MedicalGuard.load(folder=folder)
    return str(error.value)


def test_the_shipped_packs_are_those_that_are_compiled_here() -> None:
    """Every language, so that at a user's they may be compiled when a message needs them."""
    folders = sorted(one for one in (SHIPPED / "packs").iterdir() if one.is_dir())
    folders.sort(key=lambda one: one.name != "en")
    messages = load_messages(SHIPPED / "messages.yaml", None)
    accept = partial(_check_messages, messages)
    assert len(RuleSets(folders, accept, at_once=True).words) == len(folders)
    found = hash_of([*folders, SHIPPED / "messages.yaml"])
    told = (SHIPPED / "packs" / "verified.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert told == found, f"the packs or messages were edited: put {found} in verified.txt"


def test_shipped_languages_wait_for_a_message_and_edited_ones_do_not(folder: Path) -> None:
    guard = MedicalGuard.load(folder=folder)
    assert set(guard._rules._compiled) == {"en"}
    assert guard.check("me duele mucho el pecho y no puedo respirar").level == "emergency"
    assert set(guard._rules._compiled) == {"en", "es"}
    pack = folder / "packs" / "fr" / "language.yaml"
    pack.write_text(pack.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8")
    assert len(MedicalGuard.load(folder=folder)._rules._compiled) == len(
        [one for one in (folder / "packs").iterdir() if one.is_dir()]
    )


def test_a_pack_more_is_read(folder: Path) -> None:
    assert MedicalGuard.load(folder=folder).check("I have hiccups").level == "none"
    extra(folder, RULE)
    result = MedicalGuard.load(folder=folder).check("I have hiccups")
    assert result.level == "emergency"
    assert "hiccups" in result.message


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.replace("[hiccups]", "['(hic']"), ["extra.yaml:11:", "hiccups", "'('"]),
        (
            lambda t: t.replace("[hiccups]", "[<hic>]"),
            ["extra.yaml:11:", "hiccups", "no concept <hic>"],
        ),
        (
            lambda t: t.replace("[hiccups]", "[no]"),
            ["extra.yaml:11:", "hiccups", "patterns.0", "string"],
        ),
        (lambda t: t.replace("[hiccups]", "[]"), ["extra.yaml:5:", "hiccups", "needs patterns"]),
        (
            lambda t: t.replace("patterns", "pattern"),
            ["extra.yaml:11:", "hiccups", "pattern:", "Extra"],
        ),
        (
            lambda t: t.replace("level: emergency", "level: high"),
            ["extra.yaml:6:", "hiccups", "level"],
        ),
        (lambda t: t.replace("    why: For the test.\n", ""), ["extra.yaml:5:", "hiccups", "why"]),
        (lambda t: t.replace("[I have hiccups]", "[]"), ["extra.yaml:12:", "hiccups", "positive"]),
        (
            lambda t: t.replace("id: hiccups", "id: stroke"),
            ["extra.yaml:5:", "'stroke'", "emergency.yaml"],
        ),
        (
            lambda t: t + "    combinations: [fever]\n",
            ["extra.yaml:13:", "hiccups", "needs two concepts"],
        ),
        (
            lambda t: t + "    combinations: [fever + hics]\n",
            ["extra.yaml:13:", "hiccups", "no concept 'hics'"],
        ),
        (lambda t: t + "    message: shout\n", ["hiccups", "(en)", "no message 'shout'"]),
        (lambda t: t + "    title: Again\n", ["extra.yaml", "line 13", "'title' is there twice"]),
        (
            lambda t: t + "concepts: {fever: [hot]}\n",
            ["extra.yaml:13:", "concept 'fever'", "concepts.yaml"],
        ),
        (lambda t: t + "  - ]\n", ["extra.yaml", "line 13", "not valid YAML"]),
        (lambda t: "- just\n- a list\n", ["extra.yaml"]),
        (lambda t: "", ["extra.yaml"]),
    ],
)
def test_a_malformed_pack_is_refused(
    folder: Path, change: Callable[[str], str], parts: list[str]
) -> None:
    extra(folder, change(RULE))
    message = refused(folder)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    extra(folder, "").write_bytes(b"pack: \xff\xfe")
    assert "extra.yaml" in refused(folder)


@pytest.mark.parametrize("name", ["language.yaml", "reading.yaml"])
def test_a_missing_file_is_an_error_and_not_a_guard_without_it(folder: Path, name: str) -> None:
    (folder / "packs" / "en" / name).unlink()
    assert name in refused(folder)


def test_no_packs_or_no_rules_is_an_error(folder: Path) -> None:
    for file in (folder / "packs" / "en").iterdir():
        if file.stem not in ("language", "reading", "concepts"):
            file.unlink()
    assert "no rule" in refused(folder)
    shutil.rmtree(folder / "packs")
    assert "packs/en" in refused(folder)


def test_the_version_follows_the_bytes_and_not_the_place(folder: Path) -> None:
    shipped = MedicalGuard.load().version
    assert MedicalGuard.load(folder=folder).version == shipped
    extra(folder, RULE)
    changed = MedicalGuard.load(folder=folder).version
    assert changed != shipped
    with (folder / "messages.yaml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert MedicalGuard.load(folder=folder).version not in (changed, shipped)


def test_nothing_that_answers_is_built_without_the_guard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``serve``, ``ask`` and ``chat`` all put their parts together here, before they answer."""
    extra(folder, RULE.replace("[hiccups]", "['(hic']"))
    monkeypatch.setattr("housecall.guard.medical.resources.files", lambda _: folder)
    settings = Settings(data_dir=tmp_path, engine_url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"extra\.yaml:11: rule 'hiccups': pattern '\(hic'"):
        build_parts(remote_model("demo", settings), settings)
