"""A mail service that can be broken: it keeps what it is asked to send, by subject and address, and when."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from dev.harness.mails import Mail
from dev.simulators.faults import serve_or_fail


class Sink(ThreadingHTTPServer):
    """Takes every POST; `way` says how it fails meanwhile, empty for not at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.way = ""
        self.mails: list[Mail] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def notify_url(self) -> str:
        """For CUSTOMER_NOTIFY_URLS."""
        return f"json://127.0.0.1:{self.server_port}/{{email}}"


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        way = self.server.way
        serve_or_fail(self, way, lambda: self._take(heard=not way))

    def _take(self, *, heard: bool) -> None:
        mail = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.server.mails.append(Mail(mail["title"], unquote(self.path.strip("/")), time.time() * 1000, heard))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""
