"""How a peer fails: it answers 500, hangs, resets the connection, or does as asked and then breaks off its answer."""

from __future__ import annotations

import io
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

LOSE = "lose the answer"
WAYS = ("500", "hang", "reset", LOSE)
HANG_SECONDS = 20


def serve_or_fail(handler: BaseHTTPRequestHandler, way: str, serve: Callable[[], None]) -> None:
    """Answer one request by `serve`, or fail in one of WAYS; an empty way is no failure."""
    with suppress(ConnectionError):  # the caller was killed meanwhile
        match way:
            case "":
                serve()
            case "500":
                handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                handler.send_response(500)
                handler.send_header("Stripe-Should-Retry", "true")  # nothing was done, and Stripe's own would say so
                handler.send_header("Content-Length", "0")
                handler.end_headers()
            case "hang":
                time.sleep(HANG_SECONDS)
                _drop(handler)
            case "reset":
                _reset(handler)
            case _:
                _lose_half(handler, serve)


def _lose_half(handler: BaseHTTPRequestHandler, serve: Callable[[], None]) -> None:
    """The hardest one: it was done, and the caller cannot know. A download ends in the middle of the file."""
    wire, answer = handler.wfile, io.BytesIO()
    handler.wfile = answer
    serve()
    handler.wfile = wire
    wire.write(answer.getvalue()[: len(answer.getvalue()) // 2])
    _reset(handler)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST in place of FIN
    _drop(handler)


def _drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()
