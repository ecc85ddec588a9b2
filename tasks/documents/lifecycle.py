"""The course of a document, by its row: submitting -> processing -> downloading -> completed; failed on the way.

What the service tells, when it calls back or is asked, comes in any order and more than once: progress never runs back,
and what the service is done with listens no more. A document may be started again: then `start` counts up, and what is
told of its former tasks is of no account, and its progress begins anew.
"""

from __future__ import annotations

import re
from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from tasks.clients.document_service import StatusUpdate
from tasks.db.locking import insert_if_new, select_for_update
from tasks.documents.announcements import notify_waiters
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Document, DocumentStep, FormerTask
from tasks.notifications.notify import notify_admin, notify_admin_now
from tasks.payloads import require
from tasks.routes import CHECK_DOCUMENT, DOWNLOAD_DOCUMENT, SUBMIT_DOCUMENT

log = structlog.get_logger()

OPEN = frozenset({"submitting", "processing"})  # what the service's word may still change
UNFINISHED = OPEN | {"downloading"}
DOWNLOADABLE = frozenset({"downloading", "failed"})  # failed: a person replays the download
MAX_REASON_CHARACTERS = (
    2000  # characters of an error: what is kept, mailed, and looked at by expressions that people wrote
)


def set_status(db: Session, document: Document, status: str, now: datetime) -> None:
    """The document is there now, and its time line says so."""
    document.status, document.updated_at = status, now
    db.add(DocumentStep(document=document.id, status=status, progress=document.progress, at=now))


def record_progress(attempt: Attempt, db: Session, document: Document, told: StatusUpdate) -> None:
    """It is still being processed."""
    reached = min(max(int(told.progress or 0), 0), 100)
    if document.status in OPEN and reached > document.progress:
        document.progress = reached
        set_status(db, document, "processing", attempt.now)


def start_download(attempt: Attempt, db: Session, document: Document, told: StatusUpdate, effect: str) -> FollowUp:
    """The service is done: the job, by the name of `effect`, that fetches the result."""
    document.result_url = require(told.result_url, "result_url")
    document.result_sha256, document.result_size = told.digest, told.length
    set_status(db, document, "downloading", attempt.now)
    return FollowUp(effect, DOWNLOAD_DOCUMENT, {"document": document.id}, ordering_key=document.id)


def is_retryable(reason: str, patterns: tuple[re.Pattern[str], ...]) -> bool:
    """Whether a failure for this reason is worth another start, by DOCUMENT_RETRY_ERRORS."""
    return any(pattern.search(reason[:MAX_REASON_CHARACTERS]) for pattern in patterns)


def fail(attempt: Attempt, db: Session, document: Document, reason: str, *, passes: bool) -> list[FollowUp]:
    """This start has failed: tell the administrator, and start again if that may help and was not done too often.

    If not, the job of the next start is made all the same: it ends as a dead letter at once, and a replay of it starts
    the document again. The reason may quote the document, so it stays in SQL and out of the log.
    """
    number, limit = document.start + 1, attempt.settings.document_starts
    again = passes and number <= limit
    document.error = reason[:MAX_REASON_CHARACTERS]
    set_status(db, document, "failed", attempt.now)
    log.warning("document failed", document=document.id, start=document.start, again=again)
    what = f"It is started again: start {number} of {limit}." if again else "To start it again, replay its dead letter."
    told = notify_admin(db, attempt, "document_failed", **_failure_words(attempt, document, what))
    if not again:
        return [told, *notify_waiters(db, attempt, document), submission_job(document, number)]
    restart(db, document, number, attempt.now)
    return [told, submission_job(document, number), deadline_job(attempt, document, 1)]


def give_up(attempt: Attempt, db: Session, key: str, reason: str) -> GaveUp:
    """What to raise in a job that ends as a dead letter: what it leaves behind in SQL is committed here.

    One that was killed after that comes here again, and leaves the same.
    """
    document = select_for_update(db, Document, key)
    if document is None:
        return GaveUp(reason, [])
    if document.status in UNFINISHED:
        _fail_for_good(attempt, db, document, reason)
    told = notify_waiters(db, attempt, document) if document.status == "failed" else []
    db.commit()
    return GaveUp(reason, told)


def _fail_for_good(attempt: Attempt, db: Session, document: Document, reason: str) -> None:
    document.error = reason[:MAX_REASON_CHARACTERS]
    set_status(db, document, "failed", attempt.now)
    log.warning("document failed", document=document.id, reason=reason)
    words = _failure_words(attempt, document, "To try it again, replay its dead letter.")
    notify_admin_now(db, attempt, "document_failed", **words)


def restart(db: Session, document: Document, number: int, now: datetime) -> None:
    """From here on only this start counts."""
    if document.task_id:
        insert_if_new(db, FormerTask, task_id=document.task_id, document=document.id)
    document.start, document.task_id, document.result_url = number, None, None
    document.progress = document.received_bytes = 0
    document.total_bytes = document.result_sha256 = document.result_size = None
    set_status(db, document, "submitting", now)


def submission_job(document: Document, number: int) -> FollowUp:
    args: dict[str, str | int] = {"document": document.id, "start": number}
    return FollowUp(f"documents.start.{number}", SUBMIT_DOCUMENT, args, ordering_key=document.id)


def deadline_job(attempt: Attempt, document: Document, number: int) -> FollowUp:
    """The `number`th question what became of the present start; after a replay a question of its own, because a job
    that was done is not made again."""
    again = replay_suffix(attempt)
    args: dict[str, str | int] = {"document": document.id, "start": document.start, "number": number}
    return FollowUp(
        f"documents.deadline.{document.start}.{number}{again}",
        CHECK_DOCUMENT,
        {**args, "replayed": again} if again else args,
        delay_seconds=attempt.settings.document_deadline,
        ordering_key=document.id,
    )


def _failure_words(attempt: Attempt, document: Document, what: str) -> dict[str, str]:
    told = {"document": document.document_id, "id": document.id, "reason": document.error or "", "next": what}
    return {**told, "about": f"{document.id}/{document.start}{replay_suffix(attempt)}"}  # each failure is told of
