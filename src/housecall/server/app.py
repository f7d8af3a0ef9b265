"""The app: routes, middleware and the engine's life, with no globals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, Response

import housecall
from housecall.answer import Answerer
from housecall.deadline import SHUTTING_DOWN
from housecall.engines.base import Engine
from housecall.errors import EngineUnavailable, HousecallError
from housecall.guard.base import Guard
from housecall.server import errors, native, openai, openai_text, runs, sessions
from housecall.server.errors import responses
from housecall.server.housekeeping import Housekeeping
from housecall.server.metrics import CONTENT_TYPE, Metrics
from housecall.server.middleware import AllowedHosts, ApiKeys, BodyLimit, RequestId
from housecall.server.streams import Served
from housecall.server.wire import Health, Ready
from housecall.sessions import SessionStore
from housecall.settings import Settings
from housecall.types import ServedModel

_log = logging.getLogger(__name__)

_DOCS_ASSETS = "/docs/assets"
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:"
)


def create_app(
    engine: Engine, guard: Guard, model: ServedModel, store: SessionStore, settings: Settings
) -> FastAPI:
    """The API for one model. Its lifespan loads the engine, in the background, and closes it.

    When the model can't be loaded, ``app.state.failure`` is set to the error, as the result of a
    future, and the app goes on answering /health and emergencies.
    """
    app = FastAPI(
        title="Housecall",
        version=housecall.__version__,
        description="A private, guarded, traceable LLM API on one machine.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        # Only for the documentation: the middleware asks for the key.
        dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.api_keys else [],
        responses=responses(422),
    )
    app.state.settings = settings
    app.state.answerer = Answerer(engine, guard, model, store, settings)
    app.state.housekeeping = Housekeeping(store, settings)
    app.state.created = int(time.time())
    app.state.failure = None
    # The engine's start and its moment, where it was begun before the app's.
    app.state.loading, app.state.began = None, None
    app.state.metrics = metrics = Metrics(app.state.answerer, engine)
    app.state.answerer.on_end = metrics.answered
    _add_middleware(app, settings, metrics)
    errors.install(app)
    _add_status(app)
    _add_docs(app)
    app.include_router(native.router)
    app.include_router(sessions.router)
    app.include_router(runs.router)
    app.include_router(openai.router)
    app.include_router(openai_text.router)
    return app


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Innermost first."""
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.api_keys:
        app.add_middleware(ApiKeys, keys=settings.api_keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Session-ID", "Retry-After"],
        )
    app.add_middleware(AllowedHosts, hosts=settings.hosts)
    app.add_middleware(RequestId, on_end=metrics.requested)


def _add_status(app: FastAPI) -> None:
    @app.get("/health", tags=["status"])
    async def health() -> Health:
        """Whether the process is alive."""
        return Health(version=housecall.__version__)

    @app.get("/ready", tags=["status"], responses=responses(503))
    async def ready(request: Request, answerer: Served) -> Ready:
        """Whether the model answers."""
        if failure := request.app.state.failure:
            raise EngineUnavailable(f"the model could not be loaded: {failure}")
        if answerer.draining:
            raise EngineUnavailable(SHUTTING_DOWN)
        if not await answerer.ready():
            raise EngineUnavailable("the model is loading, or the engine is starting again")
        return Ready()

    @app.get(
        "/metrics",
        tags=["status"],
        response_model=None,
        responses={200: {"content": {"text/plain": {}}}},
    )
    def metrics(request: Request) -> Response:
        """Counts and times for Prometheus; no words, names or sessions are in them."""
        return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)


def _add_docs(app: FastAPI) -> None:
    """Swagger UI from a package on this machine: it works without a network."""
    app.mount(_DOCS_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{root}{_DOCS_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_DOCS_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_DOCS_ASSETS}/favicon.png",
            # By default it would show the schema to a validator on the web.
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["Content-Security-Policy"] = _DOCS_POLICY
        return page


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    model = app.state.answerer.model
    if not model.gated:
        _log.warning(
            "NOT GATED: %s %s (sha256 %s) has not passed a quality gate; every answer says so",
            model.name,
            model.format,
            model.sha256,
        )
    tasks = [
        asyncio.create_task(_load(app)),
        asyncio.create_task(app.state.housekeeping.run()),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.state.answerer.close()


async def _load(app: FastAPI) -> None:
    began = app.state.began or time.monotonic()
    try:
        await app.state.answerer.start(app.state.loading)
    except HousecallError as error:
        _log.error("the model could not be loaded: %s", error)
        app.state.failure = error
    else:
        _log.info("the model is ready after %.1f s", time.monotonic() - began)
