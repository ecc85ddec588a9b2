"""The download job: stores a result in DOCUMENT_STORE; if its URL has expired, it asks the service for a new one."""

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
    """Download the result into DOCUMENT_STORE, then notify the mail address and the agents of the request."""
    document = db.get_one(Document, str(attempt.args["document"]))
    if document.status not in DOWNLOADABLE:  # another job has downloaded it, or it was started again
        return []
    if attempt.replays and document.status == "failed":
        set_status(db, document, "downloading", attempt.now)
    with outside_transaction(db):
        try:
            stored = _download(attempt, db, document)
        except LeaseLost:
            raise
        except Exception as error:  # including Celery's time limit
            if isinstance(error, PermanentError) or attempt.last:
                raise give_up(attempt, db, document.id, _error_text(error)) from None
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


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, HoldfastError) else f"the download failed ({type(error).__name__})"


def _download(attempt: Attempt, db: Session, document: Document) -> Stored:
    """Download from the stored URL; from a fresh one after a replay, or if the stored one is refused."""
    url = require(document.result_url, "result_url")
    if attempt.replays:
        url = _refresh_url(attempt, db, document) or url
    try:
        return _download_from(url, attempt, db, document)
    except transfer.UrlExpired:
        fresh = None if attempt.replays else _refresh_url(attempt, db, document)
        if fresh is None or fresh == url:
            raise
    return _download_from(fresh, attempt, db, document)


def _download_from(url: str, attempt: Attempt, db: Session, document: Document) -> Stored:
    expected = transfer.Expected(document.result_sha256, document.result_size)
    return transfer.download_to_store(attempt, url, document.id, _ProgressRecorder(db, document), expected)


def _refresh_url(attempt: Attempt, db: Session, document: Document) -> str | None:
    """Ask the service for the current URL of the result, and store it. None if the service returns none."""
    update = poll_status(attempt, document.task_id)
    if update is None or update.status != "completed" or not update.result_url:
        return None
    document.result_url, document.result_sha256, document.result_size = update.result_url, update.digest, update.length
    db.commit()
    return update.result_url


class _ProgressRecorder:
    """Stores the bytes received and the total in the row, every few seconds only, because each write is a commit."""

    EVERY_SECONDS = 5.0

    def __init__(self, db: Session, document: Document) -> None:
        self._db, self._document, self._last = db, document, time.monotonic()

    def __call__(self, received: int, total: int | None) -> None:
        if total != self._document.total_bytes or time.monotonic() - self._last >= self.EVERY_SECONDS:
            self._document.received_bytes, self._document.total_bytes = received, total
            self._last = time.monotonic()
            self._db.commit()
