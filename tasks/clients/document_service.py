"""Calls to the document service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import requests
from msgspec import Meta, Struct

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients.responses import raise_for_status
from tasks.payloads import Id, Text, parse
from telemetry import tracing

WHO = "the document service"
LONGEST_ANSWER_BYTES = 1024 * 1024
SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read


class Accepted(Struct):
    """The answer of POST /api/v1/process, as far as we use it."""

    task_id: Id


class StatusUpdate(Struct):
    """What the service tells of a task, when it calls back or is asked."""

    task_id: Id | None = None
    status: Text | None = None
    result_url: Text | None = None
    error_message: Text | None = None
    progress: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None
    sha256: Any = None  # of the result, and its size: not of our contract, so they may be anything
    size: Any = None

    @property
    def digest(self) -> str | None:
        """The result's SHA-256 in small hex, where the service tells one."""
        return self.sha256.lower() if isinstance(self.sha256, str) and SHA256.fullmatch(self.sha256) else None

    @property
    def length(self) -> int | None:
        """How long the result is, where the service tells it."""
        return self.size if type(self.size) is int and 0 <= self.size < 2**63 else None


class ProcessRequest(Struct):
    """The request of POST /api/v1/process."""

    document_id: str
    callback_url: str
    processing_options: dict[str, Any]


def request_processing(settings: Settings, wanted: ProcessRequest, key: str, now: datetime) -> str:
    """Have a document processed; once per `key`. Returns the service's task id.

    Raises TransientError (no connection, 429, 5xx) or PermanentError (every other refusal; DOC_SERVICE_URL not set).
    """
    request = msgspec.to_builtins(wanted)
    answer = _ask(settings, "POST", "/api/v1/process", now, json=request, headers={"Idempotency-Key": key})
    try:
        return msgspec.json.decode(answer, type=Accepted).task_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PermanentError("the document service's answer has no task_id") from None


def fetch_status(settings: Settings, task: str, now: datetime) -> StatusUpdate:
    """What became of a task, by DOC_STATUS_PATH; the answer is as a callback.

    Raises TransientError as `submit` does, PermanentError where the service does not know the task or does not tell.
    """
    path = settings.doc_status_path.replace("{task_id}", quote(task, safe=""))
    told = parse(_ask(settings, "GET", path, now), StatusUpdate)
    told.status = told.status and told.status.lower()  # services write COMPLETED as well as completed
    return told


def _ask(settings: Settings, method: str, path: str, now: datetime, **request: Any) -> bytes:
    if not settings.doc_service_url:
        raise PermanentError("DOC_SERVICE_URL is not set")
    url, request = settings.doc_service_url + path, {**request, "auth": _bearer(settings), "allow_redirects": False}
    with tracing.call(method, url) as span, _named_errors():
        request["headers"] = {**request.get("headers", {}), **span.headers}
        with requests.request(method, url, timeout=TIMEOUT_SECONDS, stream=True, **request) as answer:
            span.answered(answer.status_code)
            raise_for_status(WHO, answer.status_code, answer.headers, now)
            return _bounded(answer)


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except requests.RequestException as error:
        raise TransientError(f"{WHO} did not answer ({type(error).__name__})") from None


def _bearer(settings: Settings) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Our key, if there is one; and never what a .netrc has for this host, which requests would send in its place."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if settings.doc_service_api_key:
            request.headers["Authorization"] = f"Bearer {settings.doc_service_api_key}"
        return request

    return sign


def _bounded(answer: requests.Response) -> bytes:
    body = b""
    for piece in answer.iter_content(65536):
        body += piece
        if len(body) > LONGEST_ANSWER_BYTES:
            raise PermanentError(f"{WHO} answers with more than {LONGEST_ANSWER_BYTES} bytes")
    return body
