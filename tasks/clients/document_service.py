"""Calls to the document service."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import requests

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients.answers import check

TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read
CALLBACK_PATH = "/doc-status-webhook"


class Accepted(msgspec.Struct):
    """The answer of POST /api/v1/process, as far as we use it."""

    task_id: str


def submit(settings: Settings, document_id: str, options: dict[str, Any], key: str, now: datetime) -> str:
    """Have a document processed; once per `key`. Returns the service's task id.

    Raises TransientError (no connection, 429, 5xx) or PermanentError (every other refusal; DOC_SERVICE_URL not set).
    """
    if not settings.doc_service_url:
        raise PermanentError("DOC_SERVICE_URL is not set")
    request = {
        "document_id": document_id,
        "callback_url": settings.public_url + CALLBACK_PATH,
        "processing_options": options,
    }
    answer = _post(settings, request, {"Idempotency-Key": key})
    check("the document service", answer.status_code, answer.headers, now)
    try:
        return msgspec.json.decode(answer.content, type=Accepted).task_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PermanentError("the document service's answer has no task_id") from None


def _post(settings: Settings, request: dict[str, Any], headers: dict[str, str]) -> requests.Response:
    url = settings.doc_service_url + "/api/v1/process"
    if settings.doc_service_api_key:
        headers = {**headers, "Authorization": f"Bearer {settings.doc_service_api_key}"}
    try:
        return requests.post(url, json=request, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise TransientError(f"the document service did not answer ({type(error).__name__})") from None
