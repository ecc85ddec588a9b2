"""Documents: have them processed, follow their progress, fetch the result, tell whoever waits for it.

lifecycle.py has what may become of a document, submissions.py how it is handed to the service.
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
    fail,
    is_retryable,
    record_progress,
    set_status,
    start_download,
    submission_job,
)
from tasks.handler import Attempt, FollowUp
from tasks.models import Document, FormerTask
from tasks.payloads import Id, Text, parse, require


class Notify(Struct):
    email: Text | None = None
    agents: list[Text] = field(default_factory=list)


class Request(Struct):
    """A document that somebody asked for through our API."""

    document_id: Id | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notify: Notify = field(default_factory=Notify)


def create_document(attempt: Attempt, db: Session) -> list[FollowUp]:
    """document.requested: from here on it has a row, a start and a deadline. The event's id is our document id."""
    request = parse(attempt.event.body, Request)
    values = {
        "document_id": require(request.document_id, "document_id"),
        "options": request.options,
        "notify_email": request.notify.email,
        "notify_agents": request.notify.agents,
        "created_at": attempt.now,
        "updated_at": attempt.now,
    }
    progress = {"status": "submitting", "progress": 0, "received_bytes": 0, "start": 1}
    new = insert_if_new(db, Document, id=attempt.event.id, **progress, **values)
    document = db.get_one(Document, attempt.event.id)
    if new:
        set_status(db, document, "submitting", attempt.now)
    return [submission_job(document, 1), deadline_job(attempt, document, 1)]


def progress(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Any other status: the document is still being processed."""
    told, document = _called_back(attempt, db)
    if document:
        record_progress(attempt, db, document, told)
    return []


def completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service is done: fetch the result."""
    told, document = _called_back(attempt, db)
    return [start_download(attempt, db, document, told, "documents.download")] if document else []


def failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service gave up."""
    told, document = _called_back(attempt, db)
    if document is None:
        return []
    reason = told.error_message or "no reason given"
    return fail(attempt, db, document, reason, passes=is_retryable(reason, attempt.settings.document_retry_errors))


def _called_back(attempt: Attempt, db: Session) -> tuple[StatusUpdate, Document | None]:
    """What was told, and the document that it may change: none, if it is told too late."""
    told = parse(attempt.event.body, StatusUpdate)
    task = require(told.task_id, "task_id")
    document = db.scalars(select(Document).filter_by(task_id=task).with_for_update()).first()
    if document is None and db.get(FormerTask, task) is None:
        document = _overtaken(attempt, db)
    if document and document.id != attempt.args.get("document", document.id):
        raise PermanentError("the task is not of the document that this address was given for")
    return told, document if document and document.status in OPEN else None


def _overtaken(attempt: Attempt, db: Session) -> Document:
    """The document whose task is not known yet, if the address tells; else we try again when it is."""
    document = select_for_update(db, Document, str(attempt.args.get("document", "")))
    if document is None:
        raise TransientError("the task is not known yet")
    if document.task_id:
        raise PermanentError("the document has another task")
    return document
