"""How events arrive and how people look: the Flask application, and the front that stands before it."""

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
from web.receiver import sources, view
from web.receiver.asgi import AsgiApp
from web.receiver.delivery import Receiver

ANSWER_SECONDS = 0.8  # to connect to Redis, and again for its answer: a sender hears 200 or 503 within 2 seconds


def create_app(settings: Settings) -> Flask:
    """The receiver, the API, the console and the health pages, for any WSGI server. Connects to nothing yet."""
    return _app(settings, sources.configured_sources(settings), open_store(settings, timeout_seconds=ANSWER_SECONDS))


def create_asgi_app(settings: Settings) -> AsgiApp:
    """The same, for uvicorn with our connections: webhooks stay in its event loop. Connects to nothing yet."""
    senders = sources.configured_sources(settings)
    store = open_store(settings, timeout_seconds=ANSWER_SECONDS)
    recorder = Recorder(store, AsyncConnection(settings.redis_url, timeout_seconds=ANSWER_SECONDS))
    return AsgiApp(settings, Receiver(settings, senders, store, recorder), _app(settings, senders, store))


def _app(settings: Settings, senders: Mapping[str, sources.Source], store: Store) -> Flask:
    tracing.start(settings.traces_url, "receiver")
    app = Flask("holdfast", static_folder=None)
    engine = make_engine(settings.database_url)
    sessions = make_sessions(engine)
    app.register_blueprint(view.blueprint(settings, senders, store))
    app.register_blueprint(blueprint.blueprint(settings, senders, store, sessions))
    app.register_blueprint(content.blueprint(settings, sessions))
    app.register_blueprint(console.blueprint(settings, senders, store, sessions))
    app.register_blueprint(health.blueprint(settings, store, engine))
    app.register_blueprint(metrics.blueprint(settings, senders, store, engine))
    app.register_blueprint(openapi.blueprint(app))
    errors.register(app)
    return app
