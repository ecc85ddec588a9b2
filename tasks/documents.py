"""Documents: have them processed, follow their progress, fetch the result, tell whoever waits for it.

submitting -> processing -> downloading -> completed; failed on the way. Callbacks come in any order and more than
once: progress never runs back, and a document that the service is done with listens to no further callback.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import structlog
from msgspec import Meta, Struct, field
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks import fetching
from tasks.clients import document_service
from tasks.handling import Attempt, FollowUp
from tasks.models import Document, DocumentStep
from tasks.notifications import notify_admin, notify_customer, tell_admin_now
from tasks.payloads import Id, Text, need, read
from tasks.rows import insert_if_new, locked

log = structlog.get_logger()

OPEN = frozenset({"submitting", "processing"})  # what a callback may still change


class Notify(Struct):
    email: Text | None = None
    agents: list[Text] = field(default_factory=list)


class Request(Struct):
    """A document that somebody asked for through our API."""

    document_id: Id | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notify: Notify = field(default_factory=Notify)


class Callback(Struct):
    """What the document service tells of a task."""

    task_id: Id | None = None
    result_url: Text | None = None
    error_message: Text | None = None
    progress: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None


def initiate(attempt: Attempt, db: Session) -> list[FollowUp]:
    """document.requested: hand the document to the service and remember its task. The event's id is our document id."""
    request = read(attempt.event.body, Request)
    document = _begin(attempt, db, request)
    if document.task_id:
        return []
    db.commit()  # no transaction stays open over a call
    try:
        task = document_service.submit(
            attempt.settings, document.document_id, request.options, attempt.key, attempt.now
        )
    except PermanentError as error:
        _give_up(attempt, db, document.id, str(error))
        raise
    document = db.get_one(Document, document.id, with_for_update=True, populate_existing=True)
    document.task_id, document.error = task, None
    _step(db, document, "processing", attempt.now)
    return []


def progress(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Any other status: the document is still being processed."""
    callback, document = _called_back(attempt, db)
    reached = min(max(int(callback.progress or 0), 0), 100)
    if document.status in OPEN and reached > document.progress:
        document.progress = reached
        _step(db, document, "processing", attempt.now)
    return []


def completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service is done: fetch the result."""
    callback, document = _called_back(attempt, db)
    if document.status not in OPEN:
        return []
    document.result_url = need(callback.result_url, "result_url")
    _step(db, document, "downloading", attempt.now)
    return [
        FollowUp("documents.download", "tasks.documents.download", {"document": document.id}, ordering_key=document.id)
    ]


def failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The service gave up: keep its reason, which may quote the document, in SQL and out of the log."""
    callback, document = _called_back(attempt, db)
    if document.status not in OPEN:
        return []
    document.error = callback.error_message or "no reason given"
    _step(db, document, "failed", attempt.now)
    log.warning("document failed", document=document.id)
    return [notify_admin(db, attempt, "document_failed", **_failure_words(document))]


def download(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fetch the result into DOCUMENT_STORE, then tell whoever waits for it."""
    document = db.get_one(Document, str(attempt.args["document"]))
    if document.status == "completed":
        return _tell(attempt, db, document)
    db.commit()  # no transaction stays open over a call
    try:
        stored = fetching.fetch(attempt, need(document.result_url, "result_url"), document.id, _Recorder(db, document))
    except PermanentError as error:
        _give_up(attempt, db, document.id, str(error))
        raise
    document = db.get_one(Document, document.id, with_for_update=True, populate_existing=True)
    document.stored_as, document.content_type = stored.name, stored.content_type
    document.sha256, document.size, document.received_bytes = stored.sha256, stored.size, stored.size
    document.error, document.progress = None, 100
    _step(db, document, "completed", attempt.now)
    return _tell(attempt, db, document)


def content_url(public_url: str, document: str) -> str:
    """Where our API serves a finished document."""
    return f"{public_url}/api/v1/documents/{document}/content"


def _begin(attempt: Attempt, db: Session, request: Request) -> Document:
    values = {
        "document_id": need(request.document_id, "document_id"),
        "notify_email": request.notify.email,
        "notify_agents": request.notify.agents,
        "created_at": attempt.now,
        "updated_at": attempt.now,
    }
    new = insert_if_new(db, Document, id=attempt.event.id, status="submitting", progress=0, received_bytes=0, **values)
    document = db.get_one(Document, attempt.event.id)
    if new or document.status == "failed":  # failed: a person replays it
        _step(db, document, "submitting", attempt.now)
    return document


def _called_back(attempt: Attempt, db: Session) -> tuple[Callback, Document]:
    callback = read(attempt.event.body, Callback)
    task = need(callback.task_id, "task_id")
    document = db.scalars(select(Document).filter_by(task_id=task).with_for_update()).first()
    if document is None:  # perhaps it overtook the answer that tells us the task
        raise TransientError("the task is not known yet")
    return callback, document


def _step(db: Session, document: Document, status: str, now: datetime) -> None:
    document.status, document.updated_at = status, now
    db.add(DocumentStep(document=document.id, status=status, progress=document.progress, at=now))


def _give_up(attempt: Attempt, db: Session, document: str, reason: str) -> None:
    """The job is about to become a dead letter: what it leaves behind is committed here."""
    row = locked(db, Document, document)
    if row is None or row.status == "completed":
        return
    row.error = reason
    _step(db, row, "failed", attempt.now)
    log.warning("document failed", document=document, reason=reason)
    tell_admin_now(db, attempt, "document_failed", **_failure_words(row))


def _failure_words(document: Document) -> dict[str, str]:
    return {"document": document.document_id, "id": document.id, "reason": document.error or ""}


def _tell(attempt: Attempt, db: Session, document: Document) -> list[FollowUp]:
    agents = [
        FollowUp(f"handoff.deliver.{agent}", "tasks.handoff.deliver", {"document": document.id, "agent": agent})
        for agent in range(len(document.notify_agents))
    ]
    if not document.notify_email:
        return agents
    link = content_url(attempt.settings.public_url, document.id)
    told = notify_customer(
        db, attempt, "document_ready", document.notify_email, document=document.document_id, link=link
    )
    return [told, *agents]


class _Recorder:
    """Writes the bytes received so far into the document's row, sparingly: every write is a commit."""

    EVERY_SECONDS = 5.0

    def __init__(self, db: Session, document: Document) -> None:
        self._db, self._document, self._last = db, document, time.monotonic()

    def __call__(self, received: int) -> None:
        if time.monotonic() - self._last >= self.EVERY_SECONDS:
            self._document.received_bytes, self._last = received, time.monotonic()
            self._db.commit()
