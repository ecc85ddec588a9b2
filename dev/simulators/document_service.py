"""A document service to try Holdfast against: it takes jobs, calls back signed (Standard Webhooks), serves real files.

    python -m dev.simulators.document_service --port 8010 --api-key KEY --webhook-secret whsec_…

POST /api/v1/process {"document_id", "callback_url", "processing_options"?} with `Authorization: Bearer KEY` answers
{"task_id"}; the same Idempotency-Key gets the same task again. GET /api/v1/process/<task_id> answers what it would call
back now. How a document fares is chosen by the start of its id: document_behaviour.py. What it knows lives in memory: a
restart forgets the tasks, and the callbacks not yet sent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
from standardwebhooks import Webhook

from dev.simulators.document_behaviour import CALLBACKS, Task, ending, steps
from dev.simulators.pdf import document_pdf

MAX_REQUEST_BYTES = 1024 * 1024
STATUS = "/api/v1/process/"
FOLDERS = (STATUS, "/files/", "/moved/")
NO_HEADERS: Mapping[str, str] = {}
SLOW_PIECES, SLOW_SECONDS = 10, 2.0


class Refused(Exception):
    """The request cannot be taken: an HTTP status and a reason for people."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Service:
    """What the service knows and does; knows no HTTP server."""

    callback_tries = 12
    longest_wait_seconds = 15.0

    def __init__(self, address: str, api_key: str, webhook_secret: str, pause_seconds: float = 0.4) -> None:
        self.address, self.api_key, self.pause_seconds = address, api_key, pause_seconds
        self._webhook = Webhook(webhook_secret)
        self._lock = threading.Lock()
        self._refusals: Counter[str] = Counter()
        self._tasks: dict[str, Task] = {}  # by Idempotency-Key
        self._standing: dict[str, dict[str, Any]] = {}  # what a task's latest callback says, by task id
        self._broken: set[str] = set()  # files that were asked for before
        self._players: list[threading.Thread] = []
        self._over = threading.Event()

    def process(self, body: bytes, authorization: str, idempotency_key: str) -> Task:
        """Take a job, or find the one that this key started before. Raises Refused."""
        self._check_key(authorization)
        document_id, callback_url = _read_request(body)
        self._refuse_if_busy(document_id)
        key = idempotency_key or os.urandom(16).hex()
        with self._lock:
            known = self._tasks.get(key)
            number = 1 + sum(task.document_id == document_id for task in self._tasks.values())
            task = self._tasks.setdefault(key, Task(f"task_{_digest(key)}", document_id, callback_url, number))
        if (task.document_id, task.callback_url) != (document_id, callback_url):
            raise Refused(HTTPStatus.CONFLICT, "this Idempotency-Key was used for another request")
        if known is None:
            self._start(task)
        return task

    def status(self, task_id: str, authorization: str) -> dict[str, Any]:
        """What would be called back now. Raises Refused."""
        self._check_key(authorization)
        if task_id not in self._standing:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such task")
        return {"task_id": task_id, **self._standing[task_id]}

    def tasks(self) -> list[Task]:
        """One for each Idempotency-Key that it was asked with."""
        with self._lock:
            return list(self._tasks.values())

    @property
    def busy(self) -> int:
        """How many tasks it still calls back for."""
        return sum(player.is_alive() for player in list(self._players))

    def end(self) -> None:
        """Call nobody back any more; whoever is being called is waited for."""
        self._over.set()
        for player in list(self._players):
            player.join()

    def breaks_off(self, name: str) -> bool:
        """Whether this time the file is to be cut off: the first time, of those whose way it is."""
        with self._lock:
            first = name.startswith("breaks-") and name not in self._broken
            self._broken.add(name)
        return first

    def _check_key(self, authorization: str) -> None:
        if authorization != f"Bearer {self.api_key}":
            raise Refused(HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong")

    def _refuse_if_busy(self, document_id: str) -> None:
        with self._lock:
            if document_id.startswith("busy-") and self._refusals[document_id] < 2:
                self._refusals[document_id] += 1
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "all machines are busy, try again")

    def _start(self, task: Task) -> None:
        if task.lost:
            return
        self._standing[task.id] = {"status": "queued", "progress": 0}
        if task.way != "early-" or not self._overtake(task):
            player = threading.Thread(target=self._play, args=(task,), daemon=True)
            player.start()
            self._players.append(player)

    def _overtake(self, task: Task) -> bool:
        """Call back while the caller still waits for its answer, and let it wait; says whether anybody was there."""
        self._standing[task.id] = ending(task, self.address)
        told = self._call_back(task, 3, ending(task, self.address), tries=1)
        time.sleep(2.5 * self.pause_seconds)
        return told

    def _play(self, task: Task) -> None:
        """The callbacks of one task, in the order in which they are sent."""
        for number, step in enumerate(steps(task, self.address), 1):
            if self._over.wait(self.pause_seconds * random.uniform(0.5, 1.5)):
                return
            self._standing[task.id] = step
            for _ in range(CALLBACKS.get(task.way, 1)):
                self._call_back(task, number, step)

    def _call_back(self, task: Task, number: int, step: dict[str, Any], tries: int = 0) -> bool:
        """Send one callback until it is answered 2xx, as a real sender does: same webhook-id, fresh signature.
        Says whether it was."""
        body = json.dumps({"task_id": task.id, "document_id": task.document_id, **step})
        message_id = f"msg_{_digest(f'{task.id}/{number}')}"
        for attempt in range(tries or self.callback_tries):
            answer = self._post(task.callback_url, message_id, body)
            self.heard(task, message_id, step["status"], answer)
            if 200 <= answer < 300:
                return True
            if self._over.wait(min(self.longest_wait_seconds, 0.5 * 2**attempt)):
                break
        return False

    def heard(self, task: Task, message_id: str, status: str, answer: int) -> None:
        """A callback of this status was answered so; 0 is not at all."""
        print(f"{task.document_id}: {status} called back, answer {answer or 'none'}", flush=True)

    def _post(self, url: str, message_id: str, body: str) -> int:
        """The HTTP status, or 0 where none came."""
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body),
        }
        try:
            return requests.post(url, body.encode(), headers=headers, timeout=10, allow_redirects=False).status_code
        except requests.RequestException:
            return 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read_request(body: bytes) -> tuple[str, str]:
    """(document_id, callback_url). Raises Refused."""
    try:
        data = json.loads(body)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(data, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
    document_id, callback_url = data.get("document_id"), data.get("callback_url")
    if not isinstance(document_id, str) or not 1 <= len(document_id) <= 200:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "document_id takes a text of 1 to 200 characters")
    if not isinstance(callback_url, str) or urlsplit(callback_url).scheme not in ("http", "https"):
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "callback_url takes an http or https address")
    if not isinstance(data.get("processing_options", {}), dict):
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "processing_options takes an object")
    return document_id, callback_url


class Handler(BaseHTTPRequestHandler):
    """HTTP around the Service of its server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        try:
            if self.path != "/api/v1/process":
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such path")
            key = self.headers.get("Idempotency-Key", "")
            task = self.server.service.process(self._body(), self.headers.get("Authorization", ""), key)
            self._answer(HTTPStatus.OK, json.dumps({"task_id": task.id}).encode(), "application/json")
        except Refused as refused:
            self._answer(refused.status, json.dumps({"error": str(refused)}).encode(), "application/json")

    def do_GET(self) -> None:
        folder = next((folder for folder in FOLDERS if self.path.startswith(folder)), "")
        name = unquote(self.path.removeprefix(folder))
        if folder == STATUS:
            self._tell_status(name)
        elif folder == "/files/" and name:
            self._send_file(name)
        elif folder == "/moved/":
            self._answer(HTTPStatus.FOUND, b"", "text/plain", {"Location": f"/files/{quote(name)}"})
        else:
            self._answer(HTTPStatus.NOT_FOUND, b'{"error": "there is no such path"}', "application/json")

    def _tell_status(self, task_id: str) -> None:
        try:
            told = self.server.service.status(task_id, self.headers.get("Authorization", ""))
            self._answer(HTTPStatus.OK, json.dumps(told).encode(), "application/json")
        except Refused as refused:
            self._answer(refused.status, json.dumps({"error": str(refused)}).encode(), "application/json")

    def _send_file(self, name: str) -> None:
        """All of it, or the rest that is asked for by Range and If-Range."""
        whole, etag = document_pdf(name), f'"{_digest(name)}"'
        asked = re.fullmatch(r"bytes=([0-9]{1,12})-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked and self.headers.get("If-Range") == etag else 0
        if 0 < first < len(whole):
            print(f"{name}: the rest is asked for, from byte {first} of {len(whole)}", flush=True)
            said = {"ETag": etag, "Content-Range": f"bytes {first}-{len(whole) - 1}/{len(whole)}"}
            self._answer(HTTPStatus.PARTIAL_CONTENT, whole[first:], "application/pdf", said)
        else:
            how = {"slowly": name.startswith("slow-"), "cut_short": self.server.service.breaks_off(name)}
            self._answer(HTTPStatus.OK, whole, "application/pdf", {"ETag": etag}, **how)

    def _body(self) -> bytes:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MAX_REQUEST_BYTES:
            self.close_connection = True  # what follows was not read, so it must not be taken for the next request
            raise Refused(HTTPStatus.BAD_REQUEST, f"Content-Length takes a number up to {MAX_REQUEST_BYTES}")
        return self.rfile.read(int(size))

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] = NO_HEADERS, **how: bool
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in more.items():
            self.send_header(name, value)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if how.get("cut_short"):
            body, self.close_connection = body[: len(body) // 2], True
        pieces = SLOW_PIECES if how.get("slowly") else 1
        for number in range(pieces):
            self.wfile.write(body[len(body) * number // pieces : len(body) * (number + 1) // pieces])
            time.sleep(SLOW_SECONDS / pieces if pieces > 1 else 0)


class Server(ThreadingHTTPServer):
    """The simulator on a port of loopback. `serve_forever()` runs it, `shutdown()` and `server_close()` end it."""

    def __init__(self, port: int, api_key: str, webhook_secret: str, pause_seconds: float = 0.4) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.service = Service(self.address, api_key, webhook_secret, pause_seconds)

    def server_close(self) -> None:
        super().server_close()
        self.service.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dev.simulators.document_service", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--port", type=int, required=True)
    # The stack passes its secrets by the environment: a command line can be read by every user of the machine.
    parser.add_argument("--api-key", default=os.environ.get("DOC_SERVICE_API_KEY", ""))
    parser.add_argument("--webhook-secret", default=os.environ.get("DOC_WEBHOOK_SECRET", ""))
    arguments = parser.parse_args()
    if not arguments.api_key or not arguments.webhook_secret:
        parser.error("it needs an API key and a webhook secret, as arguments or in the environment")
    server = Server(arguments.port, arguments.api_key, arguments.webhook_secret.split(",")[0])
    print(f"document service on {server.address}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
