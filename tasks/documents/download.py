"""The download job: fetches a result into DOCUMENT_STORE; if its address has expired, asks for a new one."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, LeaseLost, PermanentError
from tasks.db.transactions import outside_transaction
from tasks.documents import transfer
from tasks.documents.announcements import notify_waiters
from tasks.documents.lifecycle import DOWNLOADABLE, give_up, set_status
from tasks.documents.store import Stored
from tasks.documents.submissions import poll_status
from tasks.handler import Attempt, FollowUp
from tasks.models import Document
from tasks.payloads import require


def download(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fetch the result into DOCUMENT_STORE, then tell whoever waits for it."""
    document = db.get_one(Document, str(attempt.args["document"]))
    if document.status not in DOWNLOADABLE:  # another job was first, or it is started again
        return []
    if attempt.replays and document.status == "failed":
        set_status(db, document, "downloading", attempt.now)
    with outside_transaction(db):
        try:
            stored = _fetched(attempt, db, document)
        except LeaseLost:
            raise
        except Exception as error:  # Celery's, too, when its time is over
            if isinstance(error, PermanentError) or attempt.last:
                raise give_up(attempt, db, document.id, _reason(error)) from None
            raise
    document = db.get_one(Document, document.id, with_for_update=True, populate_existing=True)
    if document.status not in DOWNLOADABLE:
        return []
    document.stored_as, document.content_type = stored.name, stored.content_type
    document.sha256, document.size = stored.sha256, stored.size
    document.received_bytes = document.total_bytes = stored.size
    document.error, document.progress = None, 100
    set_status(db, document, "completed", attempt.now)
    return notify_waiters(db, attempt, document)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, HoldfastError) else f"the download failed ({type(error).__name__})"


def _fetched(attempt: Attempt, db: Session, document: Document) -> Stored:
    """The result, from the address that we know, or, where that is no good or may be old, the one of today."""
    url = require(document.result_url, "result_url")
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
    told = poll_status(attempt, document.task_id)
    if told is None or told.status != "completed" or not told.result_url:
        return None
    document.result_url, document.result_sha256, document.result_size = told.result_url, told.digest, told.length
    db.commit()
    return told.result_url


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
