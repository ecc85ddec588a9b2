"""`GET /api/openapi.json`: the contract of the API and the webhooks, for programs and their generators.

Open without a key: it tells what this software takes, and nothing of anybody's data.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from inbox.job import JobState
from web.api.agents import AgentRequest
from web.api.blueprint import DocumentRequest, ReconcileRequest
from web.api.events import MOST, DiscardRequest
from web.api.openapi_schemas import shapes
from web.api.openapi_text import (
    MAYBE_NUMBER,
    MAYBE_TEXT,
    NUMBER,
    TEXT,
    Schema,
    answer,
    body,
    call,
    errors,
    having,
    in_path,
    list_of,
    objects,
    ref,
)
from web.api.replays import ReplayRequest
from web.queries import documents
from web.queries.filters import SEARCH_FIELDS

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
        "ReconcileRequest": ReconcileRequest.model_json_schema(),
        "AgentRequest": AgentRequest.model_json_schema(),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": "1", "description": "After the 200, no event is lost."},
        "paths": {**_webhooks(), **_documents(), **_agents(), **_subscriptions(), **_record(), **_health()},
        "components": {
            "schemas": {**parts, "DocumentRequest": request, **shapes()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "one of API_KEYS"}},
        },
    }


def _webhooks() -> Schema:
    answers = {
        **answer(200, "recorded, or known already", having(success={"const": True})),
        **errors("not signed, or not an event", 400, 404, 413, 503),
    }
    told: Schema = {"content": {"application/json": {"schema": {}}}, "required": True}
    post = {"summary": "A signed delivery of an event", "requestBody": told, "responses": answers, "security": []}
    return {
        "/stripe-webhook": {"post": post},
        "/doc-status-webhook": {"post": post},
        "/hooks/{source}": {"post": post, "parameters": [in_path("source")]},
    }


def _documents() -> Schema:
    key = {"name": "Idempotency-Key", "in": "header", "schema": {**TEXT, "minLength": 1, "maxLength": 255}}
    return {
        "/api/v1/documents": {
            "post": call(
                "Have a document processed",
                {**answer(202, "it is recorded", ref("Started")), **errors("not understood", 400, 413, 422)},
                requestBody=body("DocumentRequest"),
                parameters=[key],
            ),
            "get": call(
                "Documents, the newest first; q is a document_id",
                {
                    **answer(200, "found", having(documents=list_of("Document"), cursor=MAYBE_TEXT)),
                    **errors("no such state or cursor", 400),
                },
                parameters=[
                    {"name": "state", "in": "query", "schema": {"enum": list(documents.STATES)}},
                    *({"name": name, "in": "query", "schema": TEXT} for name in ("q", "cursor")),
                    PAGE,
                ],
            ),
        },
        "/api/v1/documents/{document}": {
            "get": call("How far it is", {**answer(200, "found", ref("Document")), **errors("not there", 404)}),
            "parameters": [in_path("document")],
        },
        "/content/{document}": {
            "get": {
                "summary": "The finished document, by a short-lived link that we have signed",
                "responses": {
                    "200": {"description": "its bytes", "content": {"*/*": {}}},
                    **errors("no link of ours", 404),
                },
                "parameters": [{"name": name, "in": "query", "schema": TEXT} for name in ("until", "signature")],
                "security": [],
            },
            "parameters": [in_path("document")],
        },
        "/api/v1/documents/{document}/content": {
            "get": call(
                "The finished document",
                {"200": {"description": "its bytes", "content": {"*/*": {}}}, **errors("not there", 404)},
            ),
            "parameters": [in_path("document")],
        },
    }


def _agents() -> Schema:
    body = {"content": {"application/json": {"schema": ref("AgentRequest")}}, "required": True}
    added = having(id=TEXT, name=TEXT, secret=TEXT)
    switched = {**answer(200, "it is so", ref("Agent")), **errors("unknown", 404)}
    return {
        "/api/v1/agents": {
            "get": call("Who is told of documents", answer(200, "now", having(agents=list_of("Agent")))),
            "post": call(
                "Add an agent; the secret signs what it is told",
                {**answer(201, "it is added, or was", added), **errors("refused, or taken", 400, 409, 413)},
                requestBody=body,
            ),
        },
        **{
            f"/api/v1/agents/{{agent}}/{to}": {
                "post": call(f"{to.capitalize()} it, by its id or name", switched),
                "parameters": [in_path("agent")],
            }
            for to in ("disable", "enable")
        },
    }


def _subscriptions() -> Schema:
    listed = having(subscriptions=list_of("Subscription"), cursor=MAYBE_TEXT)
    return {
        "/api/v1/subscriptions": {
            "get": call(
                "Subscriptions whose payment failed, those that changed last first",
                {**answer(200, "found", listed), **errors("no such cursor", 400)},
                parameters=[{"name": "cursor", "in": "query", "schema": TEXT}, PAGE],
            )
        }
    }


def _record() -> Schema:
    one_event = [in_path("source"), in_path("event_id")]
    replayed = having(replayed={"type": "object", "additionalProperties": TEXT})
    search = [{"name": name, "in": "query", "schema": TEXT} for name in (*SEARCH_FIELDS, "cursor")]
    state = {"name": "state", "in": "query", "required": True, "schema": {"enum": list(JobState)}}
    listed = having(events=list_of("Event"), cursor=MAYBE_TEXT)
    return {
        "/api/v1/events": {
            "get": call(
                "Events that match, the newest first; a page may hold few and still go on, until cursor is null",
                {**answer(200, "found", listed), **errors("no such state, time or cursor", 400)},
                parameters=[*search, PAGE],
            )
        },
        "/api/v1/events/{source}/{event_id}": {
            "get": call("One event", {**answer(200, "found", ref("EventWithPayload")), **errors("unknown", 404)}),
            "parameters": one_event,
        },
        "/api/v1/events/{source}/{event_id}/replay": {
            "post": call("Run its jobs again", {**answer(200, "what became of each", replayed), **errors("-", 404)}),
            "parameters": one_event,
        },
        "/api/v1/jobs": {
            "get": call(
                "Matching jobs of one state; times are those of death of dead ones, the due times of unfinished ones",
                {
                    **answer(200, "found", having(jobs=list_of("Job"), cursor=MAYBE_TEXT)),
                    **errors("another state", 400),
                },
                parameters=[*(one for one in search if one["name"] != "state"), state, PAGE],
            )
        },
        "/api/v1/jobs/{job_id}": {
            "get": call("One job", {**answer(200, "found", ref("Job")), **errors("unknown", 404)}),
            "parameters": [in_path("job_id")],
        },
        "/api/v1/jobs/{job_id}/replay": {
            "post": call(
                "Run one job again",
                {**answer(200, "it will run", having(replayed=TEXT)), **errors("unknown, or not finished", 404, 409)},
            ),
            "parameters": [in_path("job_id")],
        },
        "/api/v1/jobs/{job_id}/discard": {
            "post": call(
                "Put a dead letter away; it may still be replayed",
                {
                    **answer(200, "it is put away", having(discarded=TEXT)),
                    **errors("not understood, unknown, or not dead", 400, 404, 409, 413),
                },
                requestBody=body("DiscardRequest"),
            ),
            "parameters": [in_path("job_id")],
        },
        "/api/v1/replays": {
            "post": call(
                "Run all dead letters again that match, or say what that would do",
                {
                    **answer(200, "what it would do", ref("Forecast")),
                    **answer(202, "it is recorded", having(id=TEXT, state={"const": "requested"})),
                    **errors("not understood", 400, 413),
                },
                requestBody=body("ReplayRequest"),
            ),
            "get": call(
                "Those that a worker has begun, the newest first",
                {**answer(200, "found", having(replays=list_of("Replay"))), **errors("another limit", 400)},
                parameters=[PAGE],
            ),
        },
        "/api/v1/replays/{replay}": {
            "get": call("How far it is", {**answer(200, "found", ref("Replay")), **errors("unknown", 404)}),
            "parameters": [in_path("replay")],
        },
        "/api/v1/reconcile": {
            "get": call("What Stripe had that never arrived", answer(200, "the last look", ref("Reconcile"))),
            "post": call(
                "Look now; its event is of the source holdfast",
                {
                    **answer(202, "it is recorded", having(id=TEXT, state={"const": "requested"})),
                    **errors("not understood, or off without a STRIPE_API_KEY", 400, 409, 413),
                },
                requestBody=body("ReconcileRequest"),
            ),
        },
        "/api/v1/audit": {
            "get": call(
                "What people have done, the newest first",
                {**answer(200, "found", having(audit=objects())), **errors("another limit", 400)},
                parameters=[PAGE],
            )
        },
        "/api/v1/stats": {
            "get": call("The counts", answer(200, "now", {"type": "object", "additionalProperties": NUMBER}))
        },
        "/api/v1/sources": {
            "get": call("Who sends, with which secret, and what was refused", answer(200, "now", _senders()))
        },
    }


def _senders() -> Schema:
    secrets = {"type": "array", "items": having(secret=TEXT, verified=NUMBER, last=MAYBE_NUMBER)}
    rejected: Schema = {"type": "object", "additionalProperties": NUMBER}
    return having(sources={"type": "array", "items": having(name=TEXT, secrets=secrets, rejected=rejected)})


def _health() -> Schema:
    def page(summary: str, *statuses: int) -> Schema:
        answers = {str(status): {"description": summary} for status in statuses}
        return {"get": {"summary": summary, "responses": answers, "security": []}}

    return {
        "/livez": page("The process answers", 200),
        "/readyz": page("It can keep its promise, or why not", 200, 503),
        "/metrics": page("For Prometheus", 200, 503),
    }
