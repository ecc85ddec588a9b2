"""Agents that are told of the demo's documents, one for each way in which they can behave, and what they have heard."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests
from standardwebhooks import Webhook, WebhookVerificationError

from dev.simulators.document_behaviour import FAIL

WAYS = {
    "well": "takes what it is told",
    "slow": "takes two seconds for it",
    "down": "answers 503 three times first",
    "gone": "answers 410: it wants no more, and is disabled",
}
HANDED = {"report-1.pdf": ("well", "slow"), "report-2.pdf": ("well", "down"), "fails-1.pdf": ("well", "gone")}
DOWN_TIMES = 3
GONE = sum("gone" in ways for ways in HANDED.values())  # handoffs that must end as dead letters


class Agents(ThreadingHTTPServer):
    """All of them; `secrets` are what each was given when it was added."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.secrets: dict[str, str] = {}
        self.tries: Counter[str] = Counter()
        self.heard: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # agent and document -> webhook-ids
        self.bad: list[str] = []

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True, name="agents").start()

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}"

    def lost(self) -> Iterator[str]:
        for name, ways in HANDED.items():
            for way in ways:
                if way != "gone" and not self.heard[way, name]:
                    yield f"{name}: the agent {way!r} was not told"

    def doubled(self) -> Iterator[str]:
        for (way, name), ids in self.heard.items():
            if len(ids) > 1:
                yield f"{name}: the agent {way!r} was told {len(ids)} different things"

    def wrong(self) -> Iterator[str]:
        yield from self.bad
        if self.tries["gone"] > 1:
            yield f"the agent 'gone' was called {self.tries['gone']} times"

    def answer(self, way: str, body: bytes, headers: dict[str, str]) -> int:
        """The status for a message to this agent."""
        self.tries[way] += 1
        if way == "gone":
            return 410
        if way == "down" and self.tries[way] <= DOWN_TIMES:
            return 503
        if way == "slow":
            time.sleep(2)
        try:
            message = Webhook(self.secrets[way]).verify(body, headers)
        except WebhookVerificationError as error:
            self.bad.append(f"the agent {way!r} got what it cannot verify: {error}")
            return 401
        self._hear(way, headers["webhook-id"], message)
        return 204

    def _hear(self, way: str, message_id: str, message: dict[str, Any]) -> None:
        name = message["data"]["document_id"]
        self.heard[way, name].add(message_id)
        failed = name.startswith(FAIL)
        if failed != (message["type"] == "document.failed"):
            self.bad.append(f"{name}: the agent {way!r} heard {message['type']}")
        elif not failed and not _is_what_the_link_leads_to(message["data"]):
            self.bad.append(f"{name}: the link of the agent {way!r} leads to something else")


def _is_what_the_link_leads_to(data: dict[str, Any]) -> bool:
    content = requests.get(data["content_url"], timeout=10).content
    return bool(hashlib.sha256(content).hexdigest() == data["sha256"])


class _Handler(BaseHTTPRequestHandler):
    server: Agents

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.answer(self.path.removeprefix("/"), body, headers))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
