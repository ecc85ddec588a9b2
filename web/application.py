"""The application of a serving process: webhooks, API, console, health and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask
from sqlalchemy import Engine

from inbox.ended_sessions import EndedSessions
from inbox.recorder import AsyncConnection, Recorder
from inbox.store import Store
from settings import Settings
from tasks.broker import open_store
from tasks.db.engine import make_engine, make_sessions
from telemetry import tracing
from web import console, errors
from web.api import blueprint, content, openapi
from web.auth import RateLimit
from web.flask_host import FlaskHost
from web.known_clients import is_known
from web.ops import metrics
from web.ops.health_pages import HEALTH_PATHS, HealthPages
from web.receiver import sources, unknown_source
from web.receiver.asgi import AsgiApp
from web.receiver.receiver import Receiver

STORE_TIMEOUT_SECONDS = 0.8  # to connect to Redis, and again for its reply: a client gets 200 or 503 within 2 seconds


def create_app(settings: Settings) -> Flask:
    """API, console and metrics. Connects to nothing yet."""
    store, engine = open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS), make_engine(settings.database_url)
    return _pages(settings, sources.configured_sources(settings), store, engine, EndedSessions(store))


def create_asgi_app(settings: Settings) -> AsgiApp:
    """The whole application, for any ASGI server. Connects to nothing yet."""
    configured = sources.configured_sources(settings)
    store, engine = open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS), make_engine(settings.database_url)
    recorder = Recorder(store, AsyncConnection(settings.redis_url, timeout_seconds=STORE_TIMEOUT_SECONDS))
    ended = EndedSessions(store)
    pages = FlaskHost(
        _pages(settings, configured, store, engine, ended),
        settings.max_body_bytes,
        lambda scope: is_known(settings.api_keys, ended, scope["headers"]),
        console.SIGN_IN_PATH,
    )
    receiver = Receiver(settings, configured, store, recorder)
    health = HealthPages(settings, store, engine)
    return AsgiApp(receiver, pages, dict.fromkeys(HEALTH_PATHS, health))


def _pages(
    settings: Settings, configured: Mapping[str, sources.Source], store: Store, engine: Engine, ended: EndedSessions
) -> Flask:
    tracing.start(settings.traces_url, "receiver")
    app = Flask("holdfast", static_folder=None)
    sessions = make_sessions(engine)
    rate_limit = RateLimit(settings.api_rate_per_minute)
    app.register_blueprint(unknown_source.blueprint(configured))
    app.register_blueprint(blueprint.blueprint(settings, configured, store, sessions, rate_limit))
    app.register_blueprint(content.blueprint(settings, sessions))
    app.register_blueprint(console.blueprint(settings, configured, store, sessions, rate_limit=rate_limit, ended=ended))
    app.register_blueprint(metrics.blueprint(settings, configured, store, engine))
    app.register_blueprint(openapi.blueprint(app))
    errors.register(app)
    return app
