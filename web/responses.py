"""Responses in JSON, sent by uvicorn's protocol as bytes or by ASGI as messages."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from a2wsgi.asgi_typing import Send


class Response(NamedTuple):
    """A response in JSON. `head` is status line and headers in HTTP/1.1, each line with its line break, made once."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    head: bytes


def json_response(status: int, body: bytes, headers: Mapping[str, str]) -> Response:
    """Build a response whose body is JSON already."""
    given = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    pairs = tuple((name.lower().encode(), value.encode()) for name, value in given.items())
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode(), *(b"%b: %b\r\n" % pair for pair in pairs)]
    return Response(status, pairs, body, b"".join(lines))


async def send_response(send: Send, response: Response) -> None:
    """Send the whole response as ASGI messages."""
    await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
    await send({"type": "http.response.body", "body": response.body})
