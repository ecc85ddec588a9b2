"""Reading and parsing request bodies, within limits of size, time and total memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from a2wsgi.asgi_typing import Receive
from flask import Request
from pydantic import BaseModel, ValidationError

from web.errors import HttpError

Shape = TypeVar("Shape", bound=BaseModel)

BUDGET_BYTES = 64 * 1024 * 1024  # for the bodies of webhooks, and as much again for those of all other requests
BODY_TIMEOUT_SECONDS = 30  # for a whole body
TIMEOUT_MESSAGE = f"the body did not arrive within {BODY_TIMEOUT_SECONDS} seconds"


def read_body(request: Request, limit_bytes: int) -> bytes:
    """All of the body, in Flask. Raises HttpError, 413, if there is more of it than `limit_bytes`.

    Flask's own limit silently cuts a chunked body.
    """
    if (request.content_length or 0) > limit_bytes:
        raise too_large(limit_bytes)
    raw = request.stream.read(limit_bytes + 1)  # a chunked body has no Content-Length
    if len(raw) > limit_bytes:
        raise too_large(limit_bytes)
    return raw


def parse_json(shape: type[Shape], raw: bytes) -> Shape:
    """The body's JSON as `shape`. Raises HttpError, which names the field and never its value."""
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        raise HttpError(f"{field}: {first['msg'].lower()}") from None


async def receive_body(receive: Receive, announced: int, limit_bytes: int, reserve: Callable[[int], None]) -> bytes:
    """The whole body, in ASGI; calls `reserve` with the size of each part. Raises HttpError (413, 408, 400)."""
    if announced > limit_bytes:
        raise too_large(limit_bytes)
    raw, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            while more:
                part, more = await receive_chunk(receive)
                reserve(len(part))
                raw += part
                if len(raw) > limit_bytes:
                    raise too_large(limit_bytes)
    except TimeoutError:
        raise HttpError(TIMEOUT_MESSAGE, 408) from None
    return bytes(raw)


async def receive_chunk(receive: Receive) -> tuple[bytes, bool]:
    """The next part of the body, and whether more will follow. Raises HttpError if the connection is lost."""
    message = await receive()
    if message["type"] != "http.request":
        raise HttpError("the connection was lost before the body was complete")
    return message.get("body", b""), message.get("more_body", False)


class BodyBudget:
    """Limits the memory of all bodies that are being received at once."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes

    def reserve(self, size_bytes: int) -> None:
        """Raises HttpError, 503, if the rest of the budget is too small."""
        if size_bytes > self._free:
            raise HttpError("too many large bodies at once; send it again", 503)
        self._free -= size_bytes

    def release(self, size_bytes: int) -> None:
        """Give back what was reserved."""
        self._free += size_bytes

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Reserve memory for one body as it grows, by the yielded function; released at the end."""
        mine = 0

        def reserve(size_bytes: int) -> None:
            nonlocal mine
            self.reserve(size_bytes)
            mine += size_bytes

        try:
            yield reserve
        finally:
            self.release(mine)


def too_large(limit_bytes: int) -> HttpError:
    """The 413 for a body that exceeds the limit."""
    return HttpError(f"the body is larger than {limit_bytes} bytes", 413)
