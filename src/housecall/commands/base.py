"""The parts that answer, put together from settings for every verb that answers."""

from __future__ import annotations

from typing import NamedTuple

from housecall.answer import Answerer
from housecall.engines import engine_class
from housecall.engines.base import Engine
from housecall.guard import MedicalGuard
from housecall.guard.base import Guard
from housecall.sessions import SessionStore
from housecall.settings import Settings
from housecall.types import ServedModel


class Parts(NamedTuple):
    """What ``create_app`` and ``Answerer`` are made of, in their order."""

    engine: Engine
    guard: Guard
    model: ServedModel
    store: SessionStore
    settings: Settings


def build_parts(model: ServedModel, settings: Settings) -> Parts:
    """Engine (not started), guard and store for a model."""
    engine: Engine = engine_class("llama")(
        model.path,
        n_ctx=settings.ctx,
        parallel=settings.slots,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )
    guard = MedicalGuard.load(
        settings.country, off_topic=settings.off_topic, output=settings.guard_output
    )
    return Parts(engine, guard, model, SessionStore(settings.database), settings)


def build_answerer(model: ServedModel, settings: Settings) -> Answerer:
    """An answerer that is not started yet."""
    engine, guard, model, store, settings = build_parts(model, settings)
    return Answerer(engine, guard, model, store, settings)
