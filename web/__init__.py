"""How events arrive and how people look: the Flask application."""

from __future__ import annotations

from flask import Flask

from settings import Settings
from tasks.broker import open_store
from tasks.database import make_engine, make_sessions
from web import api, console, errors, health, openapi, receive, sources

ANSWER_SECONDS = 0.8  # to connect to Redis, and again for its answer: a sender hears 200 or 503 within 2 seconds


def create_app(settings: Settings) -> Flask:
    """The receiver, the API, the console and the health pages. Connects to nothing yet."""
    app = Flask("holdfast", static_folder=None)
    store = open_store(settings, timeout_seconds=ANSWER_SECONDS)
    engine = make_engine(settings.database_url)
    senders = sources.configured(settings)
    app.register_blueprint(receive.blueprint(settings, senders, store))
    sessions = make_sessions(engine)
    app.register_blueprint(api.blueprint(settings, senders, store, sessions))
    app.register_blueprint(console.blueprint(settings, senders, store, sessions))
    app.register_blueprint(health.blueprint(settings, senders, store, engine))
    app.register_blueprint(openapi.blueprint())
    errors.register(app)
    return app
