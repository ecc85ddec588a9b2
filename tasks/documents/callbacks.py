"""Handlers of document events: a request through our API, and the callbacks of the document service.

lifecycle.py has the state transitions, submissions.py the calls to the service, download.py the download.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks.clients.document_service import StatusUpdate
from tasks.db.locking import insert_if_new, select_for_update
from tasks.documents.lifecycle import (
    OPEN,
    deadline_job,
    fail_by_service,
    record_progress,
    set_status,
    start_download,
    submission_job,
)
from tasks.handler import Attempt, FollowUp
from tasks.models import Document, FormerTask
from tasks.payloads import ShortText, Text, parse, require


class Notify(Struct):
    email: Text | None = None
    locale: Text | None = None  # the language of that mail
    agents: list[Text] = field(default_factory=list)


class Request(Struct):
    """The body of POST /api/v1/documents, as recorded by the API."""

    document_id: ShortText | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notify: Notify = field(default_factory=Notify)
    by: Text | None = None  # the name of the API key


def create_document(attempt: Attempt, db: Session) -> list[FollowUp]:
    """document.requested: create the document's row and enqueue its submission and its deadline.

    The event's id becomes the id of the row.
    """
    request = parse(attempt.event.body, Request)
    values = {
        "document_id": require(request.document_id, "document_id"),
        "options": request.options,
        "notify_email": request.notify.email,
        "notify_locale": request.notify.locale,
        "notify_agents": request.notify.agents,
        "by": request.by,
        "created_at": attempt.now,
        "updated_at": attempt.now,
    }
    progress = {"status": "submitting", "progress": 0, "received_bytes": 0, "start": 1}
    created = insert_if_new(db, Document, id=attempt.event.id, **progress, **values)
    document = db.get_one(Document, attempt.event.id)
    if created:
        set_status(db, document, "submitting", attempt.now)
    return [submission_job(document, 1), deadline_job(attempt, document, 1)]


def progress(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Callback with any status but completed or failed: the document is still being processed."""
    update, document = _load_update(attempt, db)
    if document:
        record_progress(attempt, db, document, update)
    return []


def completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Callback with status completed: enqueue the download of the result."""
    update, document = _load_update(attempt, db)
    return [start_download(attempt, db, document, update, "documents.download")] if document else []


def failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Callback with status failed: submit the document again if the error is retryable, else give up."""
    update, document = _load_update(attempt, db)
    return fail_by_service(attempt, db, document, update) if document else []


def _load_update(attempt: Attempt, db: Session) -> tuple[StatusUpdate, Document | None]:
    """The update, and its document, locked.

    None as document means that the update must be ignored: the document has left its OPEN states, or the task is one of
    an earlier start.

    Raises TransientError while the task is unknown, PermanentError for a task of another document than the URL's.
    """
    update = parse(attempt.event.body, StatusUpdate)
    task = require(update.task_id, "task_id")
    document = db.scalars(select(Document).filter_by(task_id=task).with_for_update()).first()
    if document is None and db.get(FormerTask, task) is None:
        document = _document_from_url(attempt, db)
    if document and document.id != attempt.args.get("document", document.id):
        raise PermanentError("the task does not belong to the document of this callback URL")
    return update, document if document and document.status in OPEN else None


def _document_from_url(attempt: Attempt, db: Session) -> Document:
    """The document that the callback URL names, for a callback that arrives before the task id has been stored.

    Raises TransientError if the URL names none: the job is retried until the task id is stored.
    """
    document = select_for_update(db, Document, str(attempt.args.get("document", "")))
    if document is None:
        raise TransientError("the task is not known yet")
    if document.task_id:
        raise PermanentError("the document belongs to another task")
    return document
