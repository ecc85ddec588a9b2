"""Documents: have them processed, follow their progress, fetch the result, tell whoever waits for it.

lifecycle.py has what may become of a document, submissions.py how it is handed to the service.
"""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct, field
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, LeaseLost, PermanentError, TransientError
from tasks.clients.document_service import Told
from tasks.db.locking import insert_if_new, locked
from tasks.documents import transfer
from tasks.documents.announcements import tell
from tasks.documents.lifecycle import (
    FETCHABLE,
    OPEN,
    advance,
    deadline_job,
    fail,
    give_up,
    may_pass,
    pick_up,
    start_job,
    step,
)
from tasks.documents.store_folder import Stored
from tasks.documents.submissions import asked
from tasks.handler import Attempt, FollowUp
from tasks.models import Document, FormerTask
from tasks.payloads import Id, Text, need, read


class Notify(Struct):
    email: Text | None = None
    agents: list[Text] = field(default_factory=list)


class Request(Struct):
    """A document that somebody asked for through our API."""

    document_id: Id | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notify: Notify = field(default_factory=Notify)


def initiate(attempt: Attempt, db: Session) -> list[FollowUp]:
    """document.requested: from here on it has a row, a start and a deadline. The event's id is our document id."""
    request = read(attempt.event.body, Request)
    values = {
        "document_id": need(request.document_id, "document_id"),
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
        step(db, document, "submitting", attempt.now)
    return [start_job(document, 1), deadline_job(attempt, document, 1)]


def progress(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Any other status: the document is still being processed."""
    told, document = _called_back(attempt, db)
    if document:
        advance(attempt, db, document, told)
    return []


def completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service is done: fetch the result."""
    told, document = _called_back(attempt, db)
    return [pick_up(attempt, db, document, told, "documents.download")] if document else []


def failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service gave up."""
    told, document = _called_back(attempt, db)
    if document is None:
        return []
    reason = told.error_message or "no reason given"
    return fail(attempt, db, document, reason, passes=may_pass(reason, attempt.settings.document_retry_errors))


def download(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fetch the result into DOCUMENT_STORE, then tell whoever waits for it."""
    document = db.get_one(Document, str(attempt.args["document"]))
    if document.status not in FETCHABLE:  # another job was first, or it is started again
        return []
    if attempt.replays and document.status == "failed":
        step(db, document, "downloading", attempt.now)
    db.commit()  # no transaction stays open over a call
    try:
        stored = _fetched(attempt, db, document)
    except LeaseLost:
        raise
    except Exception as error:  # Celery's, too, when its time is over
        if isinstance(error, PermanentError) or attempt.last:
            raise give_up(attempt, db, document.id, _reason(error)) from None
        raise
    document = db.get_one(Document, document.id, with_for_update=True, populate_existing=True)
    if document.status not in FETCHABLE:
        return []
    document.stored_as, document.content_type = stored.name, stored.content_type
    document.sha256, document.size = stored.sha256, stored.size
    document.received_bytes = document.total_bytes = stored.size
    document.error, document.progress = None, 100
    step(db, document, "completed", attempt.now)
    return tell(db, attempt, document)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, HoldfastError) else f"the download failed ({type(error).__name__})"


def _fetched(attempt: Attempt, db: Session, document: Document) -> Stored:
    """The result, from the address that we know, or, where that is no good or may be old, the one of today."""
    url = need(document.result_url, "result_url")
    if attempt.replays:
        url = _todays_address(attempt, db, document) or url
    try:
        return _from(url, attempt, db, document)
    except transfer.AddressRefused:
        fresh = None if attempt.replays else _todays_address(attempt, db, document)
        if fresh is None or fresh == url:
            raise
    return _from(fresh, attempt, db, document)


def _from(url: str, attempt: Attempt, db: Session, document: Document) -> Stored:
    expected = transfer.Expected(document.result_sha256, document.result_size)
    return transfer.fetch(attempt, url, document.id, _Recorder(db, document), expected)


def _todays_address(attempt: Attempt, db: Session, document: Document) -> str | None:
    """Where the service says that the result is now, kept for the next attempt; None where it says nothing of it."""
    told = asked(attempt, document.task_id)
    if told is None or told.status != "completed" or not told.result_url:
        return None
    document.result_url, document.result_sha256, document.result_size = told.result_url, told.digest, told.length
    db.commit()
    return told.result_url


def _called_back(attempt: Attempt, db: Session) -> tuple[Told, Document | None]:
    """What was told, and the document that it may change: none, if it is told too late."""
    told = read(attempt.event.body, Told)
    task = need(told.task_id, "task_id")
    document = db.scalars(select(Document).filter_by(task_id=task).with_for_update()).first()
    if document is None and db.get(FormerTask, task) is None:
        document = _overtaken(attempt, db)
    if document and document.id != attempt.args.get("document", document.id):
        raise PermanentError("the task is not of the document that this address was given for")
    return told, document if document and document.status in OPEN else None


def _overtaken(attempt: Attempt, db: Session) -> Document:
    """The document whose task is not known yet, if the address tells; else we try again when it is."""
    document = locked(db, Document, str(attempt.args.get("document", "")))
    if document is None:
        raise TransientError("the task is not known yet")
    if document.task_id:
        raise PermanentError("the document has another task")
    return document


class _Recorder:
    """Writes the bytes received so far, and of how many, into the row, sparingly: every write is a commit."""

    EVERY_SECONDS = 5.0

    def __init__(self, db: Session, document: Document) -> None:
        self._db, self._document, self._last = db, document, time.monotonic()

    def __call__(self, received: int, total: int | None) -> None:
        if total != self._document.total_bytes or time.monotonic() - self._last >= self.EVERY_SECONDS:
            self._document.received_bytes, self._document.total_bytes = received, total
            self._last = time.monotonic()
            self._db.commit()
