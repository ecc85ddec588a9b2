"""`GET /api/openapi.json`: the contract of the API and the webhooks, for programs and their generators.

Open without a key: it tells what this software takes, and nothing of anybody's data.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from web import documents
from web.api import DocumentRequest
from web.api_record import MOST, DiscardRequest
from web.api_replays import ReplayRequest
from web.asked import SEARCH

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}
STATES = ["ready", "leased", "succeeded", "dead", "discarded"]
PAGE: Schema = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MOST}}


def blueprint() -> Blueprint:
    """The page; the document is made once."""
    pages = Blueprint("openapi", __name__)
    contract = document()

    @pages.get("/api/openapi.json")
    def openapi() -> Response:
        return jsonify(contract)

    return pages


def document() -> Schema:
    """The whole contract, as OpenAPI 3.1."""
    request = DocumentRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = request.pop("$defs") | {
        "ReplayRequest": ReplayRequest.model_json_schema(),
        "DiscardRequest": DiscardRequest.model_json_schema(),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": "1", "description": "After the 200, no event is lost."},
        "paths": {**_webhooks(), **_documents(), **_record(), **_health()},
        "components": {
            "schemas": {**parts, "DocumentRequest": request, **_shapes()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "one of API_KEYS"}},
        },
    }


def _webhooks() -> Schema:
    answers = {
        **_json(200, "recorded, or known already", _object(success={"const": True})),
        **_errors("not signed, or not an event", 400, 404, 413, 503),
    }
    told: Schema = {"content": {"application/json": {"schema": {}}}, "required": True}
    post = {"summary": "A signed delivery of an event", "requestBody": told, "responses": answers, "security": []}
    return {
        "/stripe-webhook": {"post": post},
        "/doc-status-webhook": {"post": post},
        "/hooks/{source}": {"post": post, "parameters": [_path("source")]},
    }


def _documents() -> Schema:
    body = {"content": {"application/json": {"schema": _ref("DocumentRequest")}}, "required": True}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {**TEXT, "minLength": 1, "maxLength": 255}}
    return {
        "/api/v1/documents": {
            "post": _call(
                "Have a document processed",
                {**_json(202, "it is recorded", _ref("Started")), **_errors("not understood", 400, 413)},
                requestBody=body,
                parameters=[key],
            ),
            "get": _call(
                "Documents, the newest first; q is a document_id",
                {
                    **_json(200, "found", _object(documents=_list("Document"), cursor=MAYBE_TEXT)),
                    **_errors("no such state or cursor", 400),
                },
                parameters=[
                    {"name": "state", "in": "query", "schema": {"enum": list(documents.STATES)}},
                    *({"name": name, "in": "query", "schema": TEXT} for name in ("q", "cursor")),
                    PAGE,
                ],
            ),
        },
        "/api/v1/documents/{document}": {
            "get": _call("How far it is", {**_json(200, "found", _ref("Document")), **_errors("not there", 404)}),
            "parameters": [_path("document")],
        },
        "/api/v1/documents/{document}/content": {
            "get": _call(
                "The finished document",
                {"200": {"description": "its bytes", "content": {"*/*": {}}}, **_errors("not there", 404)},
            ),
            "parameters": [_path("document")],
        },
    }


def _record() -> Schema:
    one_event = [_path("source"), _path("event_id")]
    replayed = _object(replayed={"type": "object", "additionalProperties": TEXT})
    search = [{"name": name, "in": "query", "schema": TEXT} for name in (*SEARCH, "cursor")]
    dead = {"name": "state", "in": "query", "required": True, "schema": {"const": "dead"}}
    listed = _object(events=_list("Event"), cursor=MAYBE_TEXT)
    return {
        "/api/v1/events": {
            "get": _call(
                "Events that match, the newest first; a page may hold few and still go on, until cursor is null",
                {**_json(200, "found", listed), **_errors("no such state, time or cursor", 400)},
                parameters=[*search, PAGE],
            )
        },
        "/api/v1/events/{source}/{event_id}": {
            "get": _call("One event", {**_json(200, "found", _ref("EventWithPayload")), **_errors("unknown", 404)}),
            "parameters": one_event,
        },
        "/api/v1/events/{source}/{event_id}/replay": {
            "post": _call("Run its jobs again", {**_json(200, "what became of each", replayed), **_errors("-", 404)}),
            "parameters": one_event,
        },
        "/api/v1/jobs": {
            "get": _call(
                "Dead letters that match, the newest first; times are those of death, and q matches reasons too",
                {**_json(200, "found", _object(jobs=_list("Job"), cursor=MAYBE_TEXT)), **_errors("another state", 400)},
                parameters=[*(one for one in search if one["name"] != "state"), dead, PAGE],
            )
        },
        "/api/v1/jobs/{job_id}/replay": {
            "post": _call(
                "Run one job again",
                {**_json(200, "it will run", _object(replayed=TEXT)), **_errors("unknown, or owed", 404, 409)},
            ),
            "parameters": [_path("job_id")],
        },
        "/api/v1/jobs/{job_id}/discard": {
            "post": _call(
                "Put a dead letter away; it may still be replayed",
                {
                    **_json(200, "it is put away", _object(discarded=TEXT)),
                    **_errors("not understood, unknown, or not dead", 400, 404, 409, 413),
                },
                requestBody={"content": {"application/json": {"schema": _ref("DiscardRequest")}}, "required": True},
            ),
            "parameters": [_path("job_id")],
        },
        "/api/v1/replays": {
            "post": _call(
                "Run all dead letters again that match, or say what that would do",
                {
                    **_json(200, "what it would do", _ref("Forecast")),
                    **_json(202, "it is recorded", _object(id=TEXT, state={"const": "asked"})),
                    **_errors("not understood", 400, 413),
                },
                requestBody={"content": {"application/json": {"schema": _ref("ReplayRequest")}}, "required": True},
            )
        },
        "/api/v1/replays/{replay}": {
            "get": _call("How far it is", {**_json(200, "found", _ref("Replay")), **_errors("unknown", 404)}),
            "parameters": [_path("replay")],
        },
        "/api/v1/reconcile": {
            "get": _call("What Stripe had that never arrived", _json(200, "the last look", _ref("Reconcile")))
        },
        "/api/v1/stats": {
            "get": _call("The counts", _json(200, "now", {"type": "object", "additionalProperties": NUMBER}))
        },
        "/api/v1/sources": {
            "get": _call("Who sends, with which secret, and what was refused", _json(200, "now", _senders()))
        },
    }


def _senders() -> Schema:
    secrets = {"type": "array", "items": _object(secret=TEXT, verified=NUMBER, last=MAYBE_NUMBER)}
    rejected: Schema = {"type": "object", "additionalProperties": NUMBER}
    return _object(sources={"type": "array", "items": _object(name=TEXT, secrets=secrets, rejected=rejected)})


def _health() -> Schema:
    def page(summary: str, *statuses: int) -> Schema:
        answers = {str(status): {"description": summary} for status in statuses}
        return {"get": {"summary": summary, "responses": answers, "security": []}}

    return {
        "/livez": page("The process answers", 200),
        "/readyz": page("It can keep its promise, or why not", 200, 503),
        "/metrics": page("For Prometheus", 200, 503),
    }


def _shapes() -> Schema:
    times = {"created": NUMBER, "due": NUMBER, "finished": MAYBE_NUMBER}
    names = {"id": TEXT, "source": TEXT, "type": TEXT}
    attempts = {"type": "array", "items": {"type": "object"}}
    return {
        "Error": _object(error=TEXT),
        "Started": _object(id=TEXT, status={"const": "submitting"}),
        "Document": {
            **_object(id=TEXT, status=TEXT, progress=NUMBER),
            "description": "with document_id, error, size, sha256, stored_as and times, once a worker has begun it",
        },
        "Reconcile": _object(
            state={"enum": ["off", "never", "at work", "ok", "failing"]},
            reason=MAYBE_TEXT,
            tried_at=MAYBE_TEXT,
            finished_at=MAYBE_TEXT,
            seen_until=MAYBE_NUMBER,
            missed=NUMBER,
        ),
        "Forecast": _object(dry_run={"const": True}, matching=NUMBER, looked=NUMBER, whole={"type": "boolean"}),
        "Replay": {
            **_object(
                id=TEXT,
                state={"enum": ["asked", "running", "finished"]},
                by=MAYBE_TEXT,
                **dict.fromkeys(("total", "looked", "replayed", "skipped"), NUMBER),
                finished_at=MAYBE_TEXT,
            ),
            "description": "of total dead letters so many are looked at; with the filter and created_at",
        },
        "Event": _object(**names, received=NUMBER, deliveries=NUMBER, state=TEXT, jobs=_list("Job")),
        "EventWithPayload": {
            "allOf": [_ref("Event"), _object(payload={})],
            "description": "payload: as people may see it, null once it has aged away; jobs: what each `follows`",
        },
        "Job": _object(
            **names,
            **times,
            event=TEXT,
            task=TEXT,
            queue=TEXT,
            state={"enum": STATES},
            reason=MAYBE_TEXT,
            discarded=MAYBE_NUMBER,
            why=MAYBE_TEXT,
            attempts=attempts,
        ),
    }


def _call(summary: str, answers: Schema, **more: Any) -> Schema:
    answers = {**answers, **_errors("no key, too many wrong ones, or the store is away", 401, 429, 503)}
    return {"summary": summary, "responses": answers, "security": [{"key": []}], **more}


def _json(status: int, what: str, schema: Schema) -> Schema:
    return {str(status): {"description": what, "content": {"application/json": {"schema": schema}}}}


def _errors(what: str, *statuses: int) -> Schema:
    return {name: answer for status in statuses for name, answer in _json(status, what, _ref("Error")).items()}


def _path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: str) -> Schema:
    return {"type": "array", "items": _ref(of)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
