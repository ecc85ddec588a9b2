"""A request's body, read whole and not beyond what is allowed, and understood."""

from __future__ import annotations

from typing import TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError

from web.errors import Refused

Shape = TypeVar("Shape", bound=BaseModel)


def read_body(request: Request, limit_bytes: int) -> bytes:
    """All of the body. Raises Refused, 413, if there is more of it than `limit_bytes`.

    Flask's own limit cuts a chunked body there, and says nothing.
    """
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    raw = request.stream.read(limit_bytes + 1)  # a chunked body has no length to ask for
    if len(raw) > limit_bytes:
        raise _too_large(limit_bytes)
    return raw


def parsed(shape: type[Shape], raw: bytes) -> Shape:
    """The body's JSON as `shape`. Raises Refused, which names the field and never its value."""
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Refused(f"{field}: {first['msg'].lower()}") from None


def _too_large(limit_bytes: int) -> Refused:
    return Refused(f"the body is larger than {limit_bytes} bytes", 413)
