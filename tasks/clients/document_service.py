"""Calls to the document service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import requests
from msgspec import Meta, Struct

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients.answers import check
from tasks.payloads import Id, Text, read

TIMEOUT_SECONDS = (5.0, 25.0)  # to connect, to read


class Accepted(Struct):
    """The answer of POST /api/v1/process, as far as we use it."""

    task_id: Id


class Told(Struct):
    """What the service tells of a task, when it calls back or is asked."""

    task_id: Id | None = None
    status: Text | None = None
    result_url: Text | None = None
    error_message: Text | None = None
    progress: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None


class Wanted(Struct):
    """The request of POST /api/v1/process."""

    document_id: str
    callback_url: str
    processing_options: dict[str, Any]


def submit(settings: Settings, wanted: Wanted, key: str, now: datetime) -> str:
    """Have a document processed; once per `key`. Returns the service's task id.

    Raises TransientError (no connection, 429, 5xx) or PermanentError (every other refusal; DOC_SERVICE_URL not set).
    """
    request = msgspec.to_builtins(wanted)
    answer = _ask(settings, "POST", "/api/v1/process", now, json=request, headers={"Idempotency-Key": key})
    try:
        return msgspec.json.decode(answer, type=Accepted).task_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PermanentError("the document service's answer has no task_id") from None


def status(settings: Settings, task: str, now: datetime) -> Told:
    """What became of a task, by DOC_STATUS_PATH; the answer is as a callback.

    Raises TransientError as `submit` does, PermanentError where the service does not know the task or does not tell.
    """
    path = settings.doc_status_path.replace("{task_id}", quote(task, safe=""))
    told = read(_ask(settings, "GET", path, now), Told)
    told.status = told.status and told.status.lower()  # services write COMPLETED as well as completed
    return told


def _ask(settings: Settings, method: str, path: str, now: datetime, **request: Any) -> bytes:
    if not settings.doc_service_url:
        raise PermanentError("DOC_SERVICE_URL is not set")
    headers = request.pop("headers", {})
    if settings.doc_service_api_key:
        headers = {**headers, "Authorization": f"Bearer {settings.doc_service_api_key}"}
    try:
        answer = requests.request(
            method,
            settings.doc_service_url + path,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
            **request,
        )
    except requests.RequestException as error:
        raise TransientError(f"the document service did not answer ({type(error).__name__})") from None
    check("the document service", answer.status_code, answer.headers, now)
    return answer.content
