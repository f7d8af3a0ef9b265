"""The parts that answer, put together from settings for every verb that answers.

The engine needs little; the guard and the store need packages that take a second to import, which
a model can use to load.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from housecall.engines import engine_class
from housecall.engines.base import Engine
from housecall.engines.tuning import find_tuning
from housecall.settings import Settings
from housecall.types import ServedModel

if TYPE_CHECKING:
    from housecall.answer import Answerer
    from housecall.guard.base import Guard
    from housecall.sessions import SessionStore


class Parts(NamedTuple):
    """What ``create_app`` and ``Answerer`` are made of, in their order."""

    engine: Engine
    guard: Guard
    model: ServedModel
    store: SessionStore
    settings: Settings


def build_parts(model: ServedModel, settings: Settings, engine: Engine | None = None) -> Parts:
    """Engine (not started, unless it is given), guard and store for a model."""
    from housecall.guard import MedicalGuard
    from housecall.sessions import SessionStore

    guard = MedicalGuard.load(
        settings.country,
        off_topic=settings.off_topic,
        output=settings.guard_output,
        learned=settings.guard_learned,
    )
    engine = engine or build_engine(model, settings)
    return Parts(engine, guard, model, SessionStore(settings.database), settings)


def build_engine(model: ServedModel, settings: Settings) -> Engine:
    """The engine that answers with a model, not started."""
    return _remote(model, settings) if settings.engine_url else _here(model, settings)


def remote_model(name: str | None, settings: Settings) -> ServedModel:
    """What is known of the model of another server: its name at the most."""
    host = urlsplit(settings.engine_url).hostname or settings.engine_url
    return ServedModel(
        name=name or f"remote@{host}", format="remote", sha256="", path=Path(name or "")
    )


def _here(model: ServedModel, settings: Settings) -> Engine:
    tuning = find_tuning(settings.data_dir, settings.threads)
    engine: Engine = engine_class("llama")(
        model.path,
        n_ctx=settings.ctx,
        parallel=settings.slots,
        threads=tuning.threads,
        gpu_layers=settings.gpu_layers,
        cache_prompt=not settings.deterministic,
        tuning=tuning,
    )
    return engine


def _remote(model: ServedModel, settings: Settings) -> Engine:
    engine: Engine = engine_class("remote")(
        settings.engine_url,
        key=settings.engine_key,
        model=str(model.path) if model.path.name else None,
        n_ctx=settings.ctx,
        parallel=settings.slots,
    )
    return engine


def build_answerer(model: ServedModel, settings: Settings) -> Answerer:
    """An answerer that is not started yet."""
    from housecall.answer import Answerer

    engine, guard, model, store, settings = build_parts(model, settings)
    return Answerer(engine, guard, model, store, settings)
