"""The JSON API under /api/v1, for programs; every call bears one of API_KEYS."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from inbox import queries
from inbox.event import Event
from inbox.store import Store
from settings import STRIPE_RESENDS_DAYS, Settings
from tasks import broker, reconcile_request
from tasks.models import Document
from tasks.routes import jobs_for
from telemetry import tracing
from web import auth
from web.api import agents, events, replays, subscriptions
from web.body import parse_json, read_body
from web.errors import HttpError
from web.queries import agents as agent_queries
from web.queries import documents, filters, reconcile_status
from web.queries.document_content import find_document, send_content
from web.receiver.sources import Source, delivery_stats

MOST = 200  # rows in one answer
MOST_BYTES = 16 * 1024  # of a body that has little to say
SOURCE = "api"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Notify(_Body):
    """Who is told when the document is there."""

    email: str | None = Field(default=None, max_length=320, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")
    agents: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(default_factory=list, max_length=20)


class Options(BaseModel):
    """What the document service is asked to do; further options go to it as they are."""

    model_config = ConfigDict(extra="allow")

    format: str | None = Field(default=None, max_length=50)
    ocr: bool | None = None


class DocumentRequest(_Body):
    """`POST /api/v1/documents`."""

    document_id: str = Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")
    options: Options = Field(default_factory=Options)
    notify: Notify = Field(default_factory=Notify)


class ReconcileRequest(_Body):
    """`POST /api/v1/reconcile`: what was not delivered; or all events of some days, delivered or not."""

    days: int | None = Field(default=None, ge=1, le=STRIPE_RESENDS_DAYS)


def blueprint(
    settings: Settings, sources: Mapping[str, Source], store: Store, sessions: Callable[[], Session]
) -> Blueprint:
    """Documents, events, jobs and counts."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")

    @api.before_request
    def authenticate() -> None:
        given = _bearer_key()
        key = auth.find_key(settings.api_keys, given)
        if key is None and given and auth.too_many_failures(store, str(request.remote_addr)):
            raise HttpError("too many wrong keys from this address; wait a minute", 429)
        if key is None:
            why = "the header must be Authorization: Bearer <one of API_KEYS>"
            raise HttpError(why if settings.api_keys else "the API is closed: no API_KEYS are configured", 401)
        g.who = auth.key_name(key)

    @api.post("/documents")
    def start_document() -> tuple[Response, int]:
        """Durable before the 202: the request itself is an event, and the call to the service its job."""
        began = time.monotonic()
        wanted = parse_json(DocumentRequest, read_body(request, settings.max_body_bytes))
        wanted.notify.agents = agent_queries.resolve_urls(settings, sessions, wanted.notify.agents)
        document = _document_id(g.who, request.headers.get("Idempotency-Key"))
        body = wanted.model_dump_json(exclude_none=True).encode()
        event = Event(SOURCE, document, "document.requested", body)
        bells = store.record(event, jobs_for(SOURCE, document, event.type))
        seconds, theirs = time.monotonic() - began, request.headers.get("traceparent", "")
        tracing.record_delivery(SOURCE, document, seconds, new=bells is not None, traceparent=theirs)
        if bells is None:
            return jsonify(id=document, status=_known(store, sessions, event)), 202
        broker.ring(bells)
        return jsonify(id=document, status="submitting"), 202

    @api.get("/documents")
    def list_documents() -> Response:
        """The newest first; of one state, or of one document_id."""
        with sessions() as db:
            rows, cursor = documents.load_page(db, request.args, filters.parse_limit(request.args, MOST))
        return jsonify(documents=[_document(row) for row in rows], cursor=cursor)

    @api.get("/documents/<document>")
    def show_document(document: str) -> Response:
        row = find_document(sessions, document)
        if row is None and queries.find_event(store, SOURCE, document) is None:
            raise HttpError("no such document", 404)
        return jsonify(_document(row) if row else {"id": document, "status": "submitting", "progress": 0})

    @api.get("/documents/<document>/content")
    def document_content(document: str) -> Response:
        return send_content(settings, sessions, document, "no such document, or it is not complete")

    events.register(api, settings, store, sessions)
    agents.register(api, settings, sessions)
    subscriptions.register(api, sessions)
    replays.register(api, store, sessions)
    _figures(api, settings, sources, store, sessions)
    return api


def _figures(
    api: Blueprint,
    settings: Settings,
    sources: Mapping[str, Source],
    store: Store,
    sessions: Callable[[], Session],
) -> None:
    @api.get("/stats")
    def stats() -> Response:
        return jsonify(queries.stats(store))

    @api.get("/sources")
    def list_sources() -> Response:
        return jsonify(sources=delivery_stats(sources, queries.deliveries(store)))

    @api.get("/reconcile")
    def show_reconcile() -> Response:
        with sessions() as db:
            return jsonify(reconcile_status.load_status(settings, store, db))

    @api.post("/reconcile")
    def reconcile() -> tuple[Response, int]:
        """Durable before the 202; a worker does it. How far it is: the event of this id, of the source holdfast."""
        days = parse_json(ReconcileRequest, read_body(request, MOST_BYTES)).days
        if not settings.stripe_api_key:
            raise HttpError("reconcile is off: STRIPE_API_KEY is not set", 409)
        return jsonify(id=reconcile_request.request_reconcile_now(store, days), state="requested"), 202


def _bearer_key() -> bytes:
    """The key this call bears; empty if it bears none."""
    given = request.authorization
    return (given.token or "").encode() if given and given.type == "bearer" else b""


def _document_id(who: str, idempotency_key: str | None) -> str:
    """The same key of the same caller gives the same id, so that a repeated request is the same event."""
    if idempotency_key is None:
        return f"doc_{uuid.uuid4().hex}"
    if not 1 <= len(idempotency_key) <= 255:
        raise HttpError("Idempotency-Key must be 1 to 255 characters")
    return "doc_" + hashlib.sha256(f"{who} {idempotency_key}".encode()).hexdigest()[:32]


def _known(store: Store, sessions: Callable[[], Session], event: Event) -> str:
    """Where a document stands that was asked for before under this Idempotency-Key. Raises HttpError for another."""
    before = queries.find_body(store, event.source, event.id)
    if before is not None and json.loads(before) != json.loads(event.body):  # None: it has aged away
        raise HttpError("this Idempotency-Key was used for another request; use a new key for a new request", 422)
    row = find_document(sessions, event.id)
    return row.status if row else "submitting"


def _document(row: Document) -> dict[str, Any]:
    return {
        "id": row.id,
        "document_id": row.document_id,
        "status": row.status,
        "progress": row.progress,
        "received_bytes": row.received_bytes,
        "total_bytes": row.total_bytes,
        "error": row.error,
        "size": row.size,
        "sha256": row.sha256,
        "stored_as": row.stored_as,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }
