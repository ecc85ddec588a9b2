"""What the OpenAPI document (web/api/openapi.py) is written with."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}


def call(summary: str, answers: Schema, **more: Any) -> Schema:
    """An operation that takes one of API_KEYS."""
    answers = {**answers, **errors("no key, too many wrong ones, or the store is away", 401, 429, 503)}
    return {"summary": summary, "responses": answers, "security": [{"key": []}], **more}


def answer(status: int, what: str, schema: Schema) -> Schema:
    """An answer of this status, in JSON."""
    return {str(status): {"description": what, "content": {"application/json": {"schema": schema}}}}


def errors(what: str, *statuses: int) -> Schema:
    """Answers of these statuses, each with an error in words."""
    return {name: told for status in statuses for name, told in answer(status, what, ref("Error")).items()}


def in_path(name: str) -> Schema:
    """A parameter that is a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}


def having(**properties: Schema) -> Schema:
    """An object with just these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(of: str) -> Schema:
    return {"type": "array", "items": ref(of)}


def objects() -> Schema:
    """A list of objects that are what they are."""
    return {"type": "array", "items": {"type": "object"}}


def body(of: str) -> Schema:
    """A request's body, in JSON."""
    return {"content": {"application/json": {"schema": ref(of)}}, "required": True}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
