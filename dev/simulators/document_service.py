"""A simulated document service: it accepts jobs, calls back signed (Standard Webhooks) and serves real files.

    DOC_SERVICE_API_KEY=… DOC_WEBHOOK_SECRET=whsec_… python -m dev.simulators.document_service --port 8010

POST /api/v1/process {"document_id", "callback_url", "processing_options"?} with `Authorization: Bearer KEY` answers
{"task_id"}; the same Idempotency-Key gets the same task again. GET /api/v1/process/<task_id> answers the status that
the next callback would have. All state is in memory: a restart forgets the tasks and the callbacks that were not sent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote, unquote

import msgspec
import requests
from standardwebhooks import Webhook

from dev.simulators.http import Request, Response, Simulator, json_response
from dev.simulators.pdf import document_pdf

# How a document is treated: chosen by the start of its id.
BEHAVIOURS = {
    "twice-": "every callback is sent twice under one webhook-id",
    "early-": "`completed` is called back a second before /process answers",
    "late-": "`processing` is called back after `completed`",
    "fails-": "ends as `failed`, with an error_message",
    "flaky-": "the first task fails with a temporary error",
    "busy-": "/process answers 503 twice before it accepts the job",
    "silent-": "no callback; the status must be polled",
    "lost-": "the first task is forgotten at once",
    "big-": "the result is 4 MB",
    "slow-": "the download takes two seconds",
    "breaks-": "the first download breaks off half-way",
    "moved-": "the result URL redirects",
    "forbidden-": "the result URL is one that must not be called",
}
FAIL = ("fails-", "forbidden-")  # how the ids of documents start that must end as failed
ERROR = "page 3 cannot be read"
FORBIDDEN = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"  # of the machine, in many clouds
CALLBACKS = {"twice-": 2, "silent-": 0}  # how often each is sent, if not once
PROCESS = "/api/v1/process"
PIECES, SLOW_SECONDS = 10, 2.0
CALLBACK_TRIES, MAX_WAIT_SECONDS = 100, 2.0


class Job(msgspec.Struct):
    """The body of a submission."""

    document_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    callback_url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    processing_options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Task:
    """An accepted job. `number` counts the tasks of its document from 1."""

    id: str
    job: Job
    number: int

    @property
    def behaviour(self) -> str:
        """One of BEHAVIOURS, or another start of the document's id."""
        return self.job.document_id.partition("-")[0] + "-"

    def steps(self, url: str) -> list[dict[str, Any]]:
        """The callbacks, in the order in which they are sent; `url` is the service's own."""
        sent = [{"status": "queued", "progress": 0}, {"status": "processing", "progress": 40}, self.ending(url)]
        return [*sent, {"status": "processing", "progress": 80}] if self.behaviour == "late-" else sent

    def ending(self, url: str) -> dict[str, Any]:
        """The callback that ends the task."""
        if self.behaviour == "fails-":
            return {"status": "failed", "error_message": ERROR}
        if self.behaviour == "flaky-" and self.number == 1:
            return {"status": "failed", "error_message": "temporarily out of machines"}
        folder = "moved" if self.behaviour == "moved-" else "files"
        result = FORBIDDEN if self.behaviour == "forbidden-" else f"{url}/{folder}/{quote(self.job.document_id)}"
        return {"status": "completed", "progress": 100, "result_url": result}


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
        self._shown: Counter[str] = Counter()  # how often a document's behaviour was due that shows only at first
        self._tasks: dict[str, Task] = {}  # by Idempotency-Key
        self._statuses: dict[str, dict[str, Any]] = {}  # the latest callback, by task id
        self._callers: list[threading.Thread] = []
        self._stopping = threading.Event()

    def tasks(self) -> Counter[str]:
        """By document, the number of distinct Idempotency-Keys that it was submitted with."""
        with self._lock:
            return Counter(task.job.document_id for task in self._tasks.values())

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
        if (request.method, folder) == ("GET", "files"):
            return self._send_file(unquote(name), request)
        if (request.method, folder) == ("GET", "moved"):
            return Response(302, {"Location": f"/files/{name}"})
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return _error(401, "the API key is missing or wrong")
        if (request.method, request.path) == ("POST", PROCESS):
            return self._process(request)
        task_id = request.path.removeprefix(f"{PROCESS}/")
        if request.method == "GET" and task_id in self._statuses:
            return json_response({"task_id": task_id, **self._statuses[task_id]})
        return _error(404, "there is no such path or task")

    def _process(self, request: Request) -> Response:
        """Accept a job, or find the one that this key started before."""
        try:
            job = msgspec.json.decode(request.body, type=Job)
        except msgspec.DecodeError as error:  # also the base of ValidationError
            return _error(422 if isinstance(error, msgspec.ValidationError) else 400, str(error))
        if self._fails(job.document_id, "busy-", 2):
            return _error(503, "all machines are busy, try again", **{"Retry-After": "1"})
        key = request.headers.get("Idempotency-Key") or os.urandom(16).hex()
        with self._lock:
            known = self._tasks.get(key)
            number = 1 + sum(task.job.document_id == job.document_id for task in self._tasks.values())
            task = self._tasks.setdefault(key, Task(f"task_{_digest(key)}", job, number))
        if task.job != job:
            return _error(409, "this Idempotency-Key was used for another request")
        if known is None and (task.behaviour, task.number) != ("lost-", 1):
            self._start(task)
        return json_response({"task_id": task.id})

    def _fails(self, document_id: str, behaviour: str, times: int) -> bool:
        """Whether the document has this behaviour, which shows so many times."""
        with self._lock:
            self._shown[document_id] += document_id.startswith(behaviour)
            return document_id.startswith(behaviour) and self._shown[document_id] <= times

    def _start(self, task: Task) -> None:
        self._statuses[task.id] = {"status": "queued", "progress": 0}
        if task.behaviour != "early-" or not self._call_back_early(task):
            caller = threading.Thread(target=self._call_back_all, args=(task,), daemon=True)
            caller.start()
            self._callers.append(caller)

    def _call_back_early(self, task: Task) -> bool:
        """Call back before the submission is answered, then delay the answer. Returns False if that was not taken."""
        self._statuses[task.id] = task.ending(self.url)
        taken = self._call_back(task, 3, task.ending(self.url), tries=1)
        time.sleep(2.5 * self.pause_seconds)
        return taken

    def _call_back_all(self, task: Task) -> None:
        for number, step in enumerate(task.steps(self.url), 1):
            if self._stopping.wait(self.pause_seconds * random.uniform(0.5, 1.5)):
                return
            self._statuses[task.id] = step
            for _ in range(CALLBACKS.get(task.behaviour, 1)):
                self._call_back(task, number, step)

    def _call_back(self, task: Task, number: int, step: dict[str, Any], tries: int = CALLBACK_TRIES) -> bool:
        """Send one callback until it is answered 2xx, as real senders do: same webhook-id, fresh signature.

        Returns whether it was answered 2xx.
        """
        body = json.dumps({"task_id": task.id, "document_id": task.job.document_id, **step})
        message_id = f"msg_{_digest(f'{task.id}/{number}')}"
        for attempt in range(tries):
            status = self._post(task.job.callback_url, message_id, body)
            self.log(f"{task.job.document_id}: {step['status']} called back, answer {status or 'none'}")
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
        if status == 200 and self._fails(name, "breaks-", 1):
            headers["Connection"], body = "close", whole[: len(whole) // 2]
        seconds = SLOW_SECONDS if name.startswith("slow-") and status == 200 else self.download_seconds
        return Response(status, headers, _in_pieces(body, seconds) if seconds else body)


def _in_pieces(body: bytes, seconds: float) -> Iterator[bytes]:
    for number in range(PIECES):
        yield body[len(body) * number // PIECES : len(body) * (number + 1) // PIECES]
        time.sleep(seconds / PIECES)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _error(status: int, reason: str, **headers: str) -> Response:
    return json_response({"error": reason}, status, **headers)


def main() -> None:
    """The secrets are read from the environment, because every user of a machine can read a command line."""
    parser = argparse.ArgumentParser(prog="python -m dev.simulators.document_service")
    parser.add_argument("--port", type=int, required=True)
    port, secret = parser.parse_args().port, os.environ["DOC_WEBHOOK_SECRET"].split(",")[0]
    server = DocumentService(os.environ["DOC_SERVICE_API_KEY"], secret, port=port, log=partial(print, flush=True))
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
