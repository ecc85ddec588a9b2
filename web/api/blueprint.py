"""The JSON API under /api/v1. Every request must have one of API_KEYS, with the operation's scope."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, current_app, g, request
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from tasks import reconcile_request
from web import auth
from web.api import access, agents, documents, events, imports, inputs, replays, schemas, subscriptions
from web.api.operation import operation
from web.body import parse_json, read_body
from web.errors import HttpError
from web.queries import reconcile_status
from web.receiver.sources import Source, delivery_stats


def blueprint(
    settings: Settings,
    sources: Mapping[str, Source],
    store: Store,
    sessions: Callable[[], Session],
    rate_limit: auth.RateLimit,
) -> Blueprint:
    """All of the API."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")

    @api.before_request
    def authenticate() -> None:
        given = _bearer_key()
        key = auth.find_key(settings.api_keys, given)
        if key is None and given and auth.too_many_failures(store, str(request.remote_addr)):
            raise HttpError("too many wrong keys from this address; wait a minute", 429)
        if key is None:
            error = "the header must be Authorization: Bearer <one of API_KEYS>"
            raise HttpError(error if settings.api_keys else "the API is closed: no API_KEYS are configured", 401)
        g.who = key.name
        rate_limit.count(key.name, time.monotonic())
        view: Any = current_app.view_functions[str(request.endpoint)]  # an Operation
        auth.require_scope(key, view.scope)

    documents.register(api, settings, store, sessions)
    events.register(api, settings, store, sessions)
    agents.register(api, settings, sessions)
    subscriptions.register(api, sessions)
    access.register(api, sessions)
    replays.register(api, store, sessions)
    imports.register(api, settings, store, sessions)
    _register_status(api, settings, sources, store, sessions)
    return api


def _register_status(
    api: Blueprint,
    settings: Settings,
    sources: Mapping[str, Source],
    store: Store,
    sessions: Callable[[], Session],
) -> None:
    @api.get("/stats")
    @operation("Count events and jobs by state", schemas.Stats)
    def stats() -> schemas.Stats:
        return schemas.Stats(queries.stats(store))

    @api.get("/sources")
    @operation("List the sources: deliveries, last use of each secret, rejections by reason", schemas.SourceList)
    def list_sources() -> schemas.SourceList:
        return schemas.SourceList.model_validate({"sources": delivery_stats(sources, queries.delivery_counts(store))})

    @api.get("/reconcile")
    @operation("Show the last reconcile with Stripe's list of events", schemas.ReconcileStatus)
    def show_reconcile() -> schemas.ReconcileStatus:
        with sessions() as db:
            return schemas.ReconcileStatus.model_validate(reconcile_status.load_status(settings, store, db))

    @api.post("/reconcile")
    @operation(
        "Reconcile now. The id is that of an event of the source holdfast, whose jobs show the progress",
        {202: schemas.Requested},
        errors={409: "STRIPE_API_KEY is not set"},
        body=inputs.ReconcileRequest,
        scope="replay",
    )
    def reconcile() -> schemas.Requested:
        days = parse_json(inputs.ReconcileRequest, read_body(request, inputs.MAX_BODY_BYTES)).days
        if not settings.stripe_api_key:
            raise HttpError("reconcile is off: STRIPE_API_KEY is not set", 409)
        return schemas.Requested(id=reconcile_request.request_reconcile_now(store, days, g.who), state="requested")


def _bearer_key() -> bytes:
    """The API key of the request; empty if it has none."""
    given = request.authorization
    return (given.token or "").encode() if given and given.type == "bearer" else b""
