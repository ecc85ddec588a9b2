"""The web package: webhooks, API, console, health and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

from inbox.recorder import AsyncConnection, Recorder
from inbox.store import Store
from settings import Settings
from tasks.broker import open_store
from tasks.db.engine import make_engine, make_sessions
from telemetry import tracing
from web import console, errors
from web.api import blueprint, content, openapi
from web.ops import health, metrics
from web.receiver import sources, unknown_source
from web.receiver.asgi import AsgiApp
from web.receiver.receiver import Receiver

STORE_TIMEOUT_SECONDS = 0.8  # to connect to Redis, and again for its reply: a client gets 200 or 503 within 2 seconds


def create_app(settings: Settings) -> Flask:
    """Everything but the webhooks: API, console, health and metrics. Connects to nothing yet."""
    return _app(
        settings, sources.configured_sources(settings), open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS)
    )


def create_asgi_app(settings: Settings) -> AsgiApp:
    """The whole application, for any ASGI server. Connects to nothing yet."""
    configured = sources.configured_sources(settings)
    store = open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS)
    recorder = Recorder(store, AsyncConnection(settings.redis_url, timeout_seconds=STORE_TIMEOUT_SECONDS))
    return AsgiApp(settings, Receiver(settings, configured, store, recorder), _app(settings, configured, store))


def _app(settings: Settings, configured: Mapping[str, sources.Source], store: Store) -> Flask:
    tracing.start(settings.traces_url, "receiver")
    app = Flask("holdfast", static_folder=None)
    engine = make_engine(settings.database_url)
    sessions = make_sessions(engine)
    app.register_blueprint(unknown_source.blueprint(configured))
    app.register_blueprint(blueprint.blueprint(settings, configured, store, sessions))
    app.register_blueprint(content.blueprint(settings, sessions))
    app.register_blueprint(console.blueprint(settings, configured, store, sessions))
    app.register_blueprint(health.blueprint(settings, store, engine))
    app.register_blueprint(metrics.blueprint(settings, configured, store, engine))
    app.register_blueprint(openapi.blueprint(app))
    errors.register(app)
    return app
