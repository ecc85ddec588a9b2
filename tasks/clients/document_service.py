"""Calls to the document service."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec
import requests
from msgspec import Struct

from inbox.errors import PermanentError
from settings import Settings
from tasks.clients.responses import connection_errors, raise_for_status
from tasks.payloads import Id, Text, decode, parse
from telemetry import tracing

PEER = "the document service"
MAX_RESPONSE_BYTES = 1024 * 1024
SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read


class Accepted(Struct):
    """The fields that we use of the response to POST /api/v1/process."""

    task_id: Id


class StatusUpdate(Struct):
    """The state of a task: the body of a callback, and of the response to a status request."""

    task_id: Id | None = None
    status: Text | None = None
    result_url: Text | None = None
    # Of these fields any type may come: no result is lost because one of them is malformed.
    error_message: Any = None
    progress: Any = None
    sha256: Any = None  # of the result
    size: Any = None  # of the result, in bytes

    @property
    def reason(self) -> str | None:
        """Why the task failed; None if the service sent no text."""
        return self.error_message.replace("\0", "\ufffd") if isinstance(self.error_message, str) else None

    @property
    def percent(self) -> int:
        """The progress from 0 to 100; 0 if the service sent no number."""
        known = isinstance(self.progress, int | float) and not isinstance(self.progress, bool)
        return int(min(max(self.progress, 0), 100)) if known else 0

    @property
    def digest(self) -> str | None:
        """The result's SHA-256 in lower-case hex; None if the service sent none or something else."""
        return self.sha256.lower() if isinstance(self.sha256, str) and SHA256.fullmatch(self.sha256) else None

    @property
    def length(self) -> int | None:
        """The result's length in bytes; None if the service sent none or something else."""
        return self.size if type(self.size) is int and 0 <= self.size < 2**63 else None


class ProcessRequest(Struct):
    """The request of POST /api/v1/process."""

    document_id: str
    callback_url: str
    processing_options: dict[str, Any]


def request_processing(settings: Settings, request: ProcessRequest, key: str, now: datetime) -> str:
    """Ask the service to process a document, once per idempotency `key`. Returns the service's task id.

    Raises TransientError if there is no response, and for 408, 425, 429 and 5xx; PermanentError for every other status,
    for a response without a task id, and if DOC_SERVICE_URL is not set.
    """
    body = msgspec.to_builtins(request)
    response = _request(settings, "POST", "/api/v1/process", now, json=body, headers={"Idempotency-Key": key})
    try:
        return decode(msgspec.json.Decoder(Accepted), response).task_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PermanentError("the document service's response has no task_id") from None


def fetch_status(settings: Settings, task: str, now: datetime) -> StatusUpdate:
    """The state of a task, from DOC_STATUS_PATH. The status is in lower case.

    Raises TransientError as `request_processing` does; PermanentError if the service does not know the task, or if its
    response is not a status.
    """
    path = settings.doc_status_path.replace("{task_id}", quote(task, safe=""))
    update = parse(_request(settings, "GET", path, now), StatusUpdate)
    update.status = update.status and update.status.lower()  # some services write COMPLETED
    return update


def _request(settings: Settings, method: str, path: str, now: datetime, **options: Any) -> bytes:
    if not settings.doc_service_url:
        raise PermanentError("DOC_SERVICE_URL is not set")
    url = settings.doc_service_url + path
    options = {**options, "auth": _bearer(settings), "allow_redirects": False}
    with tracing.call(method, url) as span, connection_errors(PEER, requests.RequestException):
        options["headers"] = {**options.get("headers", {}), **span.headers}
        with requests.request(method, url, timeout=TIMEOUT_SECONDS, stream=True, **options) as response:
            span.answered(response.status_code)
            raise_for_status(PEER, response.status_code, response.headers, now)
            return _read_body(response)


def _bearer(settings: Settings) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Authentication by our key, if one is set. An `auth` also keeps requests from using a .netrc for this host."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if settings.doc_service_api_key:
            request.headers["Authorization"] = f"Bearer {settings.doc_service_api_key}"
        return request

    return sign


def _read_body(response: requests.Response) -> bytes:
    body = b""
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise PermanentError(f"{PEER} answered with more than {MAX_RESPONSE_BYTES} bytes")
    return body
