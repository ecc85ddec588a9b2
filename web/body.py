"""A request's body, read whole and not beyond what is allowed."""

from __future__ import annotations

from flask import Request

from web.errors import Refused


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


def _too_large(limit_bytes: int) -> Refused:
    return Refused(f"the body is larger than {limit_bytes} bytes", 413)
