"""The base of the simulated services: an HTTP server on loopback that answers by a function and can be made to fail."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

LOSE_RESPONSE = "lose the answer"
FAULTS = ("500", "hang", "reset", LOSE_RESPONSE)
HANG_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `response_lost`: the connection will break in the middle of the response."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    response_lost: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A body in parts is sent part by part. Content-Length is the length of a body of bytes, unless it is given."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


def json_response(data: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, {"Content-Type": "application/json", **headers}, json.dumps(data).encode())


class Simulator(ThreadingHTTPServer):
    """Serves while its `with` block runs. `requests` is all that it was sent; `fault` is one of FAULTS, or empty."""

    protocol_version = "HTTP/1.0"

    def __init__(self, reply: Callable[[Request], Response], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply, self.fault = reply, ""
        self.requests: list[Request] = []
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fault_for(self, method: str) -> str:
        """The fault of the next response to a request of this method."""
        return self.fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that close their connection early are part of many tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Simulator

    def setup(self) -> None:
        self.protocol_version = self.server.protocol_version
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in Simulator.requests instead."""

    def _serve(self) -> None:
        body, fault = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self.server.fault_for(self.command)
        lost = fault == LOSE_RESPONSE
        request = Request(self.command, self.path, dict(self.headers.items()), body, lost)
        self.server.requests.append(request)
        with suppress(ConnectionError):  # the client may have been killed
            match fault:
                case "":
                    self._send(self.server.reply(request))
                case "500":  # nothing was done, and Stripe's own would say so
                    self._send(Response(500, {"Stripe-Should-Retry": "true"}))
                case "hang":
                    time.sleep(HANG_SECONDS)
                    self._close()
                case "reset":
                    self._reset()
                case _:
                    self._send_half(self.server.reply(request))

    do_GET = do_POST = do_DELETE = _serve

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        whole = isinstance(response.body, bytes)
        length = {"Content-Length": str(len(response.body))} if isinstance(response.body, bytes) else {}
        for name, value in {**length, **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in [response.body] if whole else response.body:
            self.wfile.write(part)  # type: ignore[arg-type]

    def _send_half(self, response: Response) -> None:
        """The hardest fault: the request was served, and the client cannot know. A download ends in mid-file."""
        wire, self.wfile = self.wfile, io.BytesIO()
        self._send(response)
        sent, self.wfile = self.wfile.getvalue(), wire
        wire.write(sent[: len(sent) // 2])
        self._reset()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        self._close()

    def _close(self) -> None:
        self.close_connection = True
        self.connection.close()
