"""Recipes as YAML, shipped or in files, with ``a.b=value`` overrides, into values and back."""

from __future__ import annotations

from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from housecall.config import Recipe
from housecall.errors import ConfigError


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file, with ``a.b=value`` overrides applied.

    A relative path in ``base.source`` or ``data.source`` is looked up from the working folder.

    Raises ConfigError naming the file, the key and what is wrong with it.
    """
    where, text = _read(name_or_path)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: a recipe is a YAML mapping with name, base and data")
    return parse_recipe(raw, where, overrides)


def parse_recipe(raw: dict[str, Any], where: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe from plain data. Raises ConfigError."""
    raw = deepcopy(raw)
    for override in overrides:
        _apply(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key {key!r}{more}") from error
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {key}: {what}{more}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that ``load_recipe`` reads back to an equal value."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("housecall") / "recipes"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The keys in which two recipes differ, as ``a.b: old -> new``."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            return {prefix: value}
        return {
            k: v
            for key, inner in value.items()
            for k, v in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
        }

    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    return [f"{k}: {before.get(k)} -> {after.get(k)}" for k in keys]


def _read(name_or_path: str) -> tuple[str, str]:
    shipped = shipped_recipes()
    if name_or_path in shipped:
        file = resources.files("housecall") / "recipes" / f"{name_or_path}.yaml"
        return f"recipe {name_or_path}", file.read_text(encoding="utf-8")
    path = Path(name_or_path)
    try:
        return str(path), path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no recipe {name_or_path!r}: give a YAML file, or one of {', '.join(shipped)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {_one_line(error)}") from error


def _apply(raw: dict[str, Any], override: str) -> None:
    """``train.epochs=2`` into the raw recipe; the value is read as YAML."""
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: write it as section.key=value")
    target = raw
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: {part!r} has no keys")
    try:
        target[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
