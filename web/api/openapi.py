"""`GET /api/openapi.json`: the OpenAPI document of the API and the webhooks; `GET /api/docs`: the same as a page.

Both are public: they describe this software and contain no data.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from werkzeug.routing import Rule

from web.api.operation import Operation
from web.api.schemas import Error, Success
from web.console import HEADERS

Schema = dict[str, Any]
REF = "#/components/schemas/{model}"
VALIDATION: JsonSchemaMode = "validation"
BODY_ERRORS = {400: "the body is invalid", 413: "the body is too large"}
KEY_ERRORS = {
    401: "no valid API key",
    403: "the API key lacks the scope",
    429: "too many requests by this key, or too many wrong API keys",
    503: "the store or the database is unavailable",
}
KEY = """One of API_KEYS. Each operation requires one scope: `read` shows events, jobs, documents, agents and
subscriptions; `write` starts documents; `replay` replays and discards jobs and reconciles; `admin` changes agents."""


class _SchemaGenerator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def blueprint(app: Flask) -> Blueprint:
    """Call it after all other blueprints are registered on `app`."""
    pages = Blueprint("openapi", __name__, template_folder="templates")
    contract = document(app)

    @pages.get("/api/openapi.json")
    def openapi() -> Response:
        return jsonify(contract)

    @functools.cache
    def page() -> str:  # takes 7 ms, and anybody may ask for it
        return render_template("api_docs.html", contract=contract)

    @pages.get("/api/docs")
    def docs() -> ResponseReturnValue:
        return page(), HEADERS

    @pages.get("/")
    @pages.get("/console")  # without it, Flask redirects to http:// and the Host of the request
    def root() -> ResponseReturnValue:
        return redirect(url_for("console.overview"))

    return pages


def document(app: Flask) -> Schema:
    """The OpenAPI 3.1 document of all Operations in the app's URL map."""
    views = ((rule, app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules())
    found = [(rule, view) for rule, view in views if isinstance(view, Operation)]
    models: set[type[BaseModel]] = {Error, Success}
    for _, view in found:
        models.update(model for model in (*view.responses.values(), view.body) if model)
    pairs = [(model, VALIDATION) for model in sorted(models, key=lambda model: model.__name__)]
    _, schemas = models_json_schema(pairs, ref_template=REF, schema_generator=_SchemaGenerator)
    paths: dict[str, Schema] = {**_webhooks(), **_health()}
    for rule, operation in sorted(found, key=lambda item: item[0].rule):
        (verb,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        paths.setdefault(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})[verb.lower()] = _describe(rule, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": "1", "description": "Events, jobs, documents, agents and access."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEY}},
        },
    }


def _describe(rule: Rule, operation: Operation) -> Schema:
    errors = (KEY_ERRORS if not operation.public else {}) | (BODY_ERRORS if operation.body else {})
    errors |= ({400: "a parameter is invalid"} if operation.query else {}) | dict(operation.errors)
    described: Schema = {
        "summary": operation.summary,
        "parameters": list(_parameters(rule, operation)),
        "responses": {
            **{str(status): _response(model) for status, model in operation.responses.items()},
            **{str(status): _response(Error, text) for status, text in sorted(errors.items())},
        },
        "security": [] if operation.public else [{"key": [operation.scope]}],
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _json(operation.body)}
    return described


def _parameters(rule: Rule, operation: Operation) -> Iterator[Schema]:
    for name in re.findall(r"<(?:\w+:)?(\w+)>", rule.rule):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if operation.query:
        schema = operation.query.model_json_schema(schema_generator=_SchemaGenerator)
        for name, field in schema["properties"].items():
            required = name in schema.get("required", ())
            yield {"name": name, "in": "query", "required": required, "schema": field}
    for name, field in operation.headers.items():
        yield {"name": name, "in": "header", "schema": field}


def _response(model: type[BaseModel] | None, text: str = "") -> Schema:
    if model is None:
        return {"description": "the file", "content": {"*/*": {}}}
    return {"description": text or model.__name__, "content": _json(model)}


def _json(model: type[BaseModel]) -> Schema:
    return {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}


def _webhooks() -> dict[str, Schema]:
    """The webhooks are not Operations: the receiver answers them in its event loop."""
    texts = {
        400: "not a valid, signed delivery",
        404: "no such source",
        413: "the body is too large",
        503: "send again",
    }
    post = {
        "summary": "Deliver a signed event",
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
        "responses": {"200": _response(Success, "recorded, or a duplicate")}
        | {str(status): _response(Error, text) for status, text in texts.items()},
        "security": [],
    }
    source = {"name": "source", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/stripe-webhook": {"post": post},
        "/doc-status-webhook": {"post": post},
        "/hooks/{source}": {"post": post | {"parameters": [source]}},
    }


def _health() -> dict[str, Schema]:
    pages = {
        "/livez": ("The process is running", ("200",)),
        "/readyz": ("Whether events can be recorded and jobs run; if not, why", ("200", "503")),
        "/metrics": ("Metrics for Prometheus", ("200", "503")),
    }
    return {
        path: {"get": {"summary": text, "responses": {key: {"description": text} for key in statuses}, "security": []}}
        for path, (text, statuses) in pages.items()
    }
