"""A simulated document service: it accepts jobs, calls back signed (Standard Webhooks) and serves real files.

    python -m dev.simulators.document_service --port 8010 --api-key KEY --webhook-secret whsec_…

POST /api/v1/process {"document_id", "callback_url", "processing_options"?} with `Authorization: Bearer KEY` answers
{"task_id"}; the same Idempotency-Key gets the same task again. GET /api/v1/process/<task_id> answers the status that
the next callback would have. The start of a document's id chooses its behaviour: document_behaviour.py. All state is in
memory: a restart forgets the tasks and the callbacks that were not sent.
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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
import requests
from standardwebhooks import Webhook

from dev.simulators.document_behaviour import CALLBACKS, Task, ending, steps
from dev.simulators.http import Request, Response, Simulator, json_response
from dev.simulators.pdf import document_pdf

STATUS = "/api/v1/process/"
PIECES, SLOW_SECONDS = 10, 2.0
CALLBACK_TRIES, MAX_WAIT_SECONDS = 100, 2.0


class Rejected(Exception):
    """The request cannot be accepted; its arguments are the HTTP status and the reason."""


class Job(msgspec.Struct):
    """The body of a submission."""

    document_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    callback_url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    processing_options: dict[str, Any] = {}


class DocumentService(Simulator):
    """`download_seconds` is how long each response to a GET takes; `log` gets a line for each callback."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self,
        api_key: str,
        webhook_secret: str,
        *,
        port: int = 0,
        pause_seconds: float = 0.4,
        download_seconds: float = 0.0,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(self._reply, port)
        self.api_key, self.log = api_key, log
        self.pause_seconds, self.download_seconds = pause_seconds, download_seconds
        self.acknowledged: dict[str, float] = {}  # webhook-id -> time of its first 2xx, in milliseconds since 1970
        self._webhook = Webhook(webhook_secret)
        self._lock = threading.Lock()
        self._rejections: Counter[str] = Counter()
        self._tasks: dict[str, Task] = {}  # by Idempotency-Key
        self._statuses: dict[str, dict[str, Any]] = {}  # the latest callback, by task id
        self._broken_off: set[str] = set()  # files whose download was broken off once
        self._callers: list[threading.Thread] = []
        self._stopping = threading.Event()

    def tasks(self) -> Counter[str]:
        """By document, the number of distinct Idempotency-Keys that it was submitted with."""
        with self._lock:
            return Counter(task.document_id for task in self._tasks.values())

    @property
    def busy(self) -> int:
        """How many tasks still have callbacks to send."""
        return sum(caller.is_alive() for caller in list(self._callers))

    def server_close(self) -> None:
        """Also stops all callbacks, and waits for those under way."""
        super().server_close()
        self._stopping.set()
        for caller in list(self._callers):
            caller.join()

    def _reply(self, request: Request) -> Response:
        folder, _, name = request.path.removeprefix("/").partition("/")
        try:
            match request.method, folder:
                case "GET", "files":
                    return self._send_file(unquote(name), request)
                case "GET", "moved":
                    return Response(302, {"Location": f"/files/{name}"})
                case "GET", _:
                    return self._status(request)
            return self._process(request)
        except Rejected as rejected:
            status, reason = rejected.args
            return json_response({"error": reason}, status, **({"Retry-After": "1"} if status == 503 else {}))

    def _process(self, request: Request) -> Response:
        """Accept a job, or find the one that this key started before. Raises Rejected."""
        if request.path != "/api/v1/process":
            raise Rejected(404, "there is no such path")
        self._check_key(request)
        job = _read_job(request.body)
        self._reject_if_busy(job.document_id)
        key = request.headers.get("Idempotency-Key") or os.urandom(16).hex()
        with self._lock:
            known = self._tasks.get(key)
            number = 1 + sum(task.document_id == job.document_id for task in self._tasks.values())
            new = Task(f"task_{_digest(key)}", job.document_id, job.callback_url, number)
            task = self._tasks.setdefault(key, new)
        if (task.document_id, task.callback_url) != (job.document_id, job.callback_url):
            raise Rejected(409, "this Idempotency-Key was used for another request")
        if known is None:
            self._start(task)
        return json_response({"task_id": task.id})

    def _status(self, request: Request) -> Response:
        task_id = request.path.removeprefix(STATUS)
        self._check_key(request)
        if task_id not in self._statuses:
            raise Rejected(404, "there is no such task")
        return json_response({"task_id": task_id, **self._statuses[task_id]})

    def _check_key(self, request: Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            raise Rejected(401, "the API key is missing or wrong")

    def _reject_if_busy(self, document_id: str) -> None:
        with self._lock:
            if document_id.startswith("busy-") and self._rejections[document_id] < 2:
                self._rejections[document_id] += 1
                raise Rejected(503, "all machines are busy, try again")

    def _start(self, task: Task) -> None:
        if task.lost:
            return
        self._statuses[task.id] = {"status": "queued", "progress": 0}
        if task.behaviour != "early-" or not self._call_back_early(task):
            caller = threading.Thread(target=self._call_back_all, args=(task,), daemon=True)
            caller.start()
            self._callers.append(caller)

    def _call_back_early(self, task: Task) -> bool:
        """Call back before the submission is answered, then delay the answer. Returns False if that was not taken."""
        self._statuses[task.id] = ending(task, self.url)
        taken = self._call_back(task, 3, ending(task, self.url), tries=1)
        time.sleep(2.5 * self.pause_seconds)
        return taken

    def _call_back_all(self, task: Task) -> None:
        for number, step in enumerate(steps(task, self.url), 1):
            if self._stopping.wait(self.pause_seconds * random.uniform(0.5, 1.5)):
                return
            self._statuses[task.id] = step
            for _ in range(CALLBACKS.get(task.behaviour, 1)):
                self._call_back(task, number, step)

    def _call_back(self, task: Task, number: int, step: dict[str, Any], tries: int = CALLBACK_TRIES) -> bool:
        """Send one callback until it is answered 2xx, as real senders do: same webhook-id, fresh signature.

        Returns whether it was answered 2xx.
        """
        body = json.dumps({"task_id": task.id, "document_id": task.document_id, **step})
        message_id = f"msg_{_digest(f'{task.id}/{number}')}"
        for attempt in range(tries):
            status = self._post(task.callback_url, message_id, body)
            self.log(f"{task.document_id}: {step['status']} called back, answer {status or 'none'}")
            if 200 <= status < 300:
                self.acknowledged.setdefault(message_id, time.time() * 1000)
                return True
            if self._stopping.wait(min(MAX_WAIT_SECONDS, 0.5 * 2**attempt)):
                break
        return False

    def _post(self, url: str, message_id: str, body: str) -> int:
        """The HTTP status, or 0 without a response."""
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

    def _send_file(self, name: str, request: Request) -> Response:
        """All of it, or the rest from the position that Range and If-Range name."""
        whole, headers = document_pdf(name), {"Content-Type": "application/pdf", "ETag": f'"{_digest(name)}"'}
        match_ = re.fullmatch(r"bytes=([0-9]{1,12})-", request.headers.get("Range", ""))
        first = int(match_[1]) if match_ and request.headers.get("If-Range") == headers["ETag"] else 0
        status, body = 200, whole
        if 0 < first < len(whole):
            self.log(f"{name}: resumed at byte {first} of {len(whole)}")
            status, body = 206, whole[first:]
            headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
        headers["Content-Length"] = str(len(body))
        if status == 200 and self._breaks_off(name):
            headers["Connection"], body = "close", whole[: len(whole) // 2]
        seconds = SLOW_SECONDS if name.startswith("slow-") and status == 200 else self.download_seconds
        return Response(status, headers, _in_pieces(body, seconds) if seconds else body)

    def _breaks_off(self, name: str) -> bool:
        """True at the first download of a document with this behaviour."""
        with self._lock:
            first = name.startswith("breaks-") and name not in self._broken_off
            self._broken_off.add(name)
        return first


def _in_pieces(body: bytes, seconds: float) -> Iterator[bytes]:
    for number in range(PIECES):
        yield body[len(body) * number // PIECES : len(body) * (number + 1) // PIECES]
        time.sleep(seconds / PIECES)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read_job(body: bytes) -> Job:
    """Raises Rejected."""
    try:
        return msgspec.json.decode(body, type=Job)
    except msgspec.DecodeError as error:  # also the base of ValidationError
        raise Rejected(422 if isinstance(error, msgspec.ValidationError) else 400, str(error)) from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.simulators.document_service")
    parser.add_argument("--port", type=int, required=True)
    # The stack passes its secrets in the environment: every user of a machine can read a command line.
    parser.add_argument("--api-key", default=os.environ.get("DOC_SERVICE_API_KEY", ""))
    parser.add_argument("--webhook-secret", default=os.environ.get("DOC_WEBHOOK_SECRET", ""))
    options = parser.parse_args()
    if not options.api_key or not options.webhook_secret:
        parser.error("set the API key and the webhook secret, as options or in the environment")
    secret = options.webhook_secret.split(",")[0]
    server = DocumentService(options.api_key, secret, port=options.port, log=lambda line: print(line, flush=True))
    print(f"document service on {server.url}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
