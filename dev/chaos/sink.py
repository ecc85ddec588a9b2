"""A mail service that can be broken: it counts what it is asked to send, by subject and address."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from dev.chaos.trouble import serve_or_fail


class Sink(ThreadingHTTPServer):
    """Takes every POST; `way` says how it fails meanwhile, empty for not at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.way = ""
        self.mails: defaultdict[str, Counter[str]] = defaultdict(Counter)  # "<subject> mails" -> address -> times
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def notify_url(self) -> str:
        """For CUSTOMER_NOTIFY_URLS."""
        return f"json://127.0.0.1:{self.server_port}/{{email}}"


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        serve_or_fail(self, self.server.way, self._take)

    def _take(self) -> None:
        mail = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.server.mails[f"{mail['title']} mails"][unquote(self.path.strip("/"))] += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""
