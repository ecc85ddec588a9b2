"""Calls to the document service."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from http.client import HTTPResponse
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from inbox.errors import PermanentError
from settings import Settings
from tasks.clients.http_connection import headers_of
from tasks.clients.operator_peers import CALL_ERRORS, call, find_server, read_body
from tasks.clients.responses import connection_errors, end_of_call, raise_for_status
from tasks.payloads import Id, Text, decode, parse
from telemetry import tracing

PEER = "the document service"
MAX_RESPONSE_BYTES = 1024 * 1024
SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


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


def request_processing(
    settings: Settings, request: ProcessRequest, key: str, now: datetime, deadline: float = math.inf
) -> str:
    """Ask the service to process a document, once per idempotency `key`. Returns the service's task id.

    Raises TransientError if there is no response by the `deadline` (time.monotonic()), and for 408, 425, 429 and 5xx;
    PermanentError for every other status, for a response without a task id, and if DOC_SERVICE_URL is not set.
    """
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    response = _call(
        settings, "POST", "/api/v1/process", headers, msgspec.json.encode(request), now=now, deadline=deadline
    )
    try:
        return decode(msgspec.json.Decoder(Accepted), response).task_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PermanentError("the document service's response has no task_id") from None


def fetch_status(settings: Settings, task: str, now: datetime, deadline: float = math.inf) -> StatusUpdate:
    """The state of a task, from DOC_STATUS_PATH. The status is in lower case.

    Raises TransientError as `request_processing` does; PermanentError if the service does not know the task, or if its
    response is not a status.
    """
    path = settings.doc_status_path.replace("{task_id}", quote(task, safe=""))
    update = parse(_call(settings, "GET", path, now=now, deadline=deadline), StatusUpdate)
    update.status = update.status and update.status.lower()  # some services write COMPLETED
    return update


def _call(
    settings: Settings,
    method: str,
    path: str,
    headers: Mapping[str, str] = NO_HEADERS,
    body: bytes | None = None,
    *,
    now: datetime,
    deadline: float,
) -> bytes:
    if not settings.doc_service_url:
        raise PermanentError("DOC_SERVICE_URL is not set")
    server = find_server(settings.doc_service_url)
    until = end_of_call(PEER, math.inf, deadline)
    with tracing.call(method, settings.doc_service_url) as span:
        sent = {**headers, **_authorization(settings), **span.headers}
        with (
            connection_errors(PEER, *CALL_ERRORS, deadline=deadline),
            call(server, server.request(method, path, sent, body), settings.doc_service_api_key, until) as connection,
        ):
            response = connection.response
            span.answered(response.status)
            raise_for_status(PEER, response.status, headers_of(response), now)
            return _read_limited(response)


def _authorization(settings: Settings) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {settings.doc_service_api_key}"} if settings.doc_service_api_key else NO_HEADERS


def _read_limited(response: HTTPResponse) -> bytes:
    body = b""
    for chunk in read_body(response):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise PermanentError(f"{PEER} answered with more than {MAX_RESPONSE_BYTES} bytes")
    return body
