"""`/api/v1/documents`: start a document, follow its progress, fetch the file."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request
from sqlalchemy.orm import Session

from inbox import queries
from inbox.event import Event
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.models import Document
from tasks.routes import jobs_for
from telemetry import tracing
from web import auth
from web.api import inputs, schemas
from web.api.operation import operation
from web.body import parse_json, read_body
from web.downloads import Reader
from web.errors import HttpError
from web.queries import agents, documents, filters
from web.queries.document_content import find_document, send_content

SOURCE = "api"
NOT_COMPLETED = "no such document, or it is not complete"
IDEMPOTENCY_KEY = {"type": "string", "minLength": 1, "maxLength": 255}


def register(api: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    @api.post("/documents")
    @operation(
        "Start a document",
        {202: schemas.DocumentStarted},
        errors={422: "the Idempotency-Key was used for another request"},
        body=inputs.DocumentRequest,
        scope="write",
        headers={"Idempotency-Key": IDEMPOTENCY_KEY},
    )
    def start_document() -> schemas.DocumentStarted:
        """Durable before the 202: the request is an event, and the call to the document service is its job."""
        began = time.monotonic()
        body = parse_json(inputs.DocumentRequest, read_body(request, settings.max_body_bytes))
        body.notify.agents = agents.resolve_urls(settings, sessions, body.notify.agents)
        document = _document_id(g.who, request.headers.get("Idempotency-Key"))
        if body.notify.email and queries.find_event(store, SOURCE, document) is None:
            auth.count_mail(store, g.who, settings.api_mails_per_hour)
        payload = json.dumps(body.model_dump(exclude_none=True) | {"by": g.who})
        event = Event(SOURCE, document, "document.requested", payload.encode())
        bells = store.record(event, jobs_for(SOURCE, document, event.type))
        seconds, traceparent = time.monotonic() - began, request.headers.get("traceparent", "")
        tracing.record_delivery(SOURCE, document, seconds, new=bells is not None, traceparent=traceparent)
        if bells is None:
            return schemas.DocumentStarted(id=document, status=_current_status(store, sessions, event))
        broker.ring(bells)
        return schemas.DocumentStarted(id=document, status="submitting")

    @api.get("/documents")
    @operation("List documents, the newest first", schemas.DocumentPage, query=inputs.DocumentQuery)
    def list_documents() -> schemas.DocumentPage:
        with sessions() as db:
            limit = filters.parse_limit(request.args, inputs.MAX_ROWS)
            rows, cursor = documents.load_page(db, request.args, limit)
        return schemas.DocumentPage(documents=[_to_model(row) for row in rows], cursor=cursor)

    @api.get("/documents/<document>")
    @operation("Show the status and progress of a document", schemas.Document, errors={404: "no such document"})
    def show_document(document: str) -> schemas.Document:
        row = find_document(sessions, document)
        if row is None and queries.find_event(store, SOURCE, document) is None:
            raise HttpError("no such document", 404)
        return _to_model(row) if row else schemas.Document(id=document, status="submitting", progress=0)

    @api.get("/documents/<document>/content")
    @operation("Fetch the file of a completed document", {200: None}, errors={404: NOT_COMPLETED})
    def document_content(document: str) -> Response:
        return send_content(settings, sessions, document, NOT_COMPLETED, Reader(g.who, has_key=True))


def _document_id(who: str, idempotency_key: str | None) -> str:
    """The same Idempotency-Key from the same caller gives the same id, so that a repeated request is the same event."""
    if idempotency_key is None:
        return f"doc_{uuid.uuid4().hex}"
    if not 1 <= len(idempotency_key) <= 255:
        raise HttpError("Idempotency-Key must be 1 to 255 characters")
    return "doc_" + hashlib.sha256(f"{who} {idempotency_key}".encode()).hexdigest()[:32]


def _current_status(store: Store, sessions: Callable[[], Session], event: Event) -> str:
    """The status of a document that was requested before with this Idempotency-Key.

    Raises HttpError, 422, if the earlier request was a different one.
    """
    earlier = queries.find_body(store, event.source, event.id)
    if earlier is not None and _request(earlier) != _request(event.body):  # None: the payload has been deleted
        raise HttpError("this Idempotency-Key was used for another request; use a new key for a new request", 422)
    row = find_document(sessions, event.id)
    return row.status if row else "submitting"


def _request(payload: bytes) -> dict[str, Any]:
    """What was requested, without `by`, which payloads of earlier versions lack."""
    return {name: value for name, value in json.loads(payload).items() if name != "by"}


def _to_model(row: Document) -> schemas.Document:
    return schemas.Document(
        id=row.id,
        document_id=row.document_id,
        status=row.status,
        by=row.by,
        progress=row.progress,
        received_bytes=row.received_bytes,
        total_bytes=row.total_bytes,
        error=row.error,
        size=row.size,
        sha256=row.sha256,
        stored_as=row.stored_as,
        created_at=row.created_at.isoformat(),
        updated_at=row.updated_at.isoformat(),
    )
