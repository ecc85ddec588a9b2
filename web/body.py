"""Reading and parsing request bodies, within limits of size, time, rate and total memory."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from a2wsgi.asgi_typing import Receive
from flask import Request
from pydantic import BaseModel, ValidationError

from web.errors import HttpError

Shape = TypeVar("Shape", bound=BaseModel)

BUDGET_BYTES = 64 * 1024 * 1024  # for the bodies of webhooks, and as much again for those of all other requests
BODY_TIMEOUT_SECONDS = 30  # for a whole body
GRACE_SECONDS, MIN_BYTES_PER_SECOND = 5, 1024  # a body must arrive at this rate, except for its first seconds
TIMEOUT_MESSAGE = (
    f"the body must arrive within {BODY_TIMEOUT_SECONDS} seconds, and with {MIN_BYTES_PER_SECOND} bytes a second"
)


def allowed_seconds(received_bytes: int) -> float:
    """How long a body may take, of which so much has arrived; in seconds since its request began."""
    return min(BODY_TIMEOUT_SECONDS, GRACE_SECONDS + received_bytes / MIN_BYTES_PER_SECOND)


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


async def receive_chunk(receive: Receive) -> tuple[bytes, bool]:
    """The next part of the body, and whether more will follow. Raises HttpError if the connection is lost."""
    message = await receive()
    if message["type"] != "http.request":
        raise HttpError("the connection was lost before the body was complete")
    return message.get("body", b""), message.get("more_body", False)


class Unfinished(Protocol):
    """A body of which more may be to come."""

    def reject(self, error: HttpError) -> None:
        """Answer with this error, and release the memory now."""


class BodyBudget:
    """Limits the memory of all bodies at once. When it is full, the oldest unfinished body is rejected: slow senders
    must not keep others out."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes
        self._unfinished: dict[Unfinished, None] = {}  # in the order of their first bytes

    def reserve(self, body: Unfinished, size_bytes: int) -> None:
        """Memory for a part of this body. Raises HttpError, 503, if there is none and no other body is older."""
        self._free -= size_bytes
        while self._free < 0:
            oldest = next(iter(self._unfinished), body)
            error = HttpError("too many large bodies at once; send it again", 503)
            if oldest is body:
                self._free += size_bytes
                raise error
            self.complete(oldest)
            oldest.reject(error)

    def await_rest(self, body: Unfinished) -> None:
        """More of this body is to come: until it is complete or released, it may have to make room."""
        self._unfinished[body] = None  # a body that is known keeps its place

    def complete(self, body: Unfinished) -> None:
        """The body is complete, and keeps its memory until it is released."""
        self._unfinished.pop(body, None)

    def release(self, body: Unfinished, size_bytes: int) -> None:
        """Give back what was reserved for this body."""
        if self._unfinished:
            self._unfinished.pop(body, None)
        self._free += size_bytes


class AsgiBody:
    """The body of a request that arrives as ASGI messages. Its memory is reserved until `release`."""

    def __init__(self, budget: BodyBudget, limit_bytes: int) -> None:
        self._budget, self._limit_bytes, self._raw = budget, limit_bytes, bytearray()
        self._rejection: HttpError | None = None

    async def receive(self, receive: Receive, announced_bytes: int) -> bytes:
        """All of it. Raises HttpError: 413, 408, 503, or 400 if the connection is lost."""
        if announced_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        began, more = asyncio.get_running_loop().time(), True
        try:
            async with asyncio.timeout(allowed_seconds(0)) as self._timeout:
                while more:
                    chunk, more = await receive_chunk(receive)
                    self._add(chunk)
                    self._timeout.reschedule(began + allowed_seconds(len(self._raw)))
        except TimeoutError:
            raise self._rejection or HttpError(TIMEOUT_MESSAGE, 408) from None
        self._budget.complete(self)
        return bytes(self._raw)

    def _add(self, chunk: bytes) -> None:
        if self._rejection:  # the timeout that ends the wait has not run yet
            raise self._rejection
        self._budget.reserve(self, len(chunk))
        self._budget.await_rest(self)
        self._raw += chunk
        if len(self._raw) > self._limit_bytes:
            raise too_large(self._limit_bytes)

    def reject(self, error: HttpError) -> None:
        """End the wait for more of it."""
        self._rejection = error
        self.release()
        self._timeout.reschedule(0)

    def release(self) -> None:
        """Give its memory back."""
        self._budget.release(self, len(self._raw))
        self._raw = bytearray()


def too_large(limit_bytes: int) -> HttpError:
    """The 413 for a body that exceeds the limit."""
    return HttpError(f"the body is larger than {limit_bytes} bytes", 413)
