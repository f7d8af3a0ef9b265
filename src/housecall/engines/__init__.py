"""Engines by name, loaded only when asked for."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from housecall.errors import ConfigError, MissingPackage

_ENGINES = {
    # name: (module, class, package that must be there, what pip installs it)
    "llama": ("housecall.engines.llama", "LlamaEngine", "xllamacpp", "housecall"),
    "remote": ("housecall.engines.remote", "RemoteEngine", None, "housecall"),
    "hf": ("housecall.engines.hf", "HfEngine", "transformers", "'housecall[train]'"),
    "fake": ("housecall.engines.fake", "FakeEngine", None, "housecall"),
}


def engine_class(name: str) -> Any:
    """The engine class called ``name``.

    Raises ConfigError for an unknown name and MissingPackage when its package is not installed.
    """
    try:
        module, cls, package, pip = _ENGINES[name]
    except KeyError:
        raise ConfigError(f"unknown engine {name!r}: choose one of {', '.join(_ENGINES)}") from None
    if package and importlib.util.find_spec(package) is None:
        raise MissingPackage(f"engine {name!r} needs the package {package}", pip)
    return getattr(importlib.import_module(module), cls)
