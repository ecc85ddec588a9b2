"""State transitions of a document's row: submitting -> processing -> downloading -> completed, or failed on the way.

Status updates may arrive out of order or more than once. Progress never decreases, and updates for a finished document
or for an earlier start are ignored. Each new start of a document increments `start` and resets its progress.
"""

from __future__ import annotations

import re
from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from tasks.clients.document_service import StatusUpdate
from tasks.db.locking import insert_if_new, select_for_update
from tasks.documents.announcements import notify_waiters, readable
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Document, DocumentStep, FormerTask
from tasks.notifications.notify import notify_admin, notify_admin_now
from tasks.payloads import require
from tasks.routes import CHECK_DOCUMENT, DOWNLOAD_DOCUMENT, SUBMIT_DOCUMENT

log = structlog.get_logger()

OPEN = frozenset({"submitting", "processing"})  # a status update may still change these
UNFINISHED = OPEN | {"downloading"}
DOWNLOADABLE = frozenset({"downloading", "failed"})  # "failed": the download was replayed by an operator
MAX_REASON_CHARACTERS = 2000  # of an error text; bounds what is stored, mailed and matched by DOCUMENT_RETRY_ERRORS


def set_status(db: Session, document: Document, status: str, now: datetime) -> None:
    """Set the status and add it to the document's timeline."""
    document.status, document.updated_at = status, now
    db.add(DocumentStep(document=document.id, status=status, progress=document.progress, at=now))


def record_progress(attempt: Attempt, db: Session, document: Document, update: StatusUpdate) -> None:
    """Store the progress (percent), if it is higher than the stored one."""
    if document.status in OPEN and update.percent > document.progress:
        document.progress = update.percent
        set_status(db, document, "processing", attempt.now)


def start_download(attempt: Attempt, db: Session, document: Document, update: StatusUpdate, effect: str) -> FollowUp:
    """Store where the result is, and return the job that downloads it, under the effect name `effect`."""
    document.result_url = require(update.result_url, "result_url")
    document.result_sha256, document.result_size = update.digest, update.length
    set_status(db, document, "downloading", attempt.now)
    return FollowUp(effect, DOWNLOAD_DOCUMENT, {"document": document.id}, ordering_key=document.id)


def fail_by_service(attempt: Attempt, db: Session, document: Document, update: StatusUpdate) -> list[FollowUp]:
    """`fail` with the reason that the service gives; retryable if DOCUMENT_RETRY_ERRORS matches it."""
    reason = update.reason or "no reason given"
    return fail(attempt, db, document, reason, retryable=is_retryable(reason, attempt.settings.document_retry_errors))


def is_retryable(reason: str, patterns: tuple[re.Pattern[str], ...]) -> bool:
    """True if one of the DOCUMENT_RETRY_ERRORS patterns matches the reason."""
    return any(pattern.search(reason[:MAX_REASON_CHARACTERS]) for pattern in patterns)


def fail(attempt: Attempt, db: Session, document: Document, reason: str, *, retryable: bool) -> list[FollowUp]:
    """Record that this start has failed, notify the administrator, and start the document again if `retryable`.

    After DOCUMENT_STARTS starts, or if not retryable, the job of the next start is created all the same: it becomes a
    dead letter at once, and replaying it starts the document again. The reason may quote the document, so it is
    stored in SQL but not logged.
    """
    number, limit = document.start + 1, attempt.settings.document_starts
    again = retryable and number <= limit
    document.error = reason[:MAX_REASON_CHARACTERS]
    set_status(db, document, "failed", attempt.now)
    log.warning("document failed", document=document.id, start=document.start, again=again)
    next_step = (
        f"It is started again: start {number} of {limit}." if again else "To start it again, replay its dead letter."
    )
    mail = notify_admin(db, attempt, "document_failed", **_failure_params(attempt, document, next_step))
    if not again:
        return [mail, *notify_waiters(db, attempt, document), submission_job(document, number)]
    restart(db, document, number, attempt.now)
    return [mail, submission_job(document, number), deadline_job(attempt, document, 1)]


def give_up(attempt: Attempt, db: Session, key: str, reason: str) -> GaveUp:
    """Mark the document as failed, commit, and return the GaveUp to raise, with the notifications as follow-ups.

    A job that is killed after the commit comes here again and returns the same follow-ups.
    """
    document = select_for_update(db, Document, key)
    if document is None:
        return GaveUp(reason, [])
    if document.status in UNFINISHED:
        _fail_for_good(attempt, db, document, reason)
    follow_ups = notify_waiters(db, attempt, document) if document.status == "failed" else []
    db.commit()
    return GaveUp(reason, follow_ups)


def _fail_for_good(attempt: Attempt, db: Session, document: Document, reason: str) -> None:
    document.error = reason[:MAX_REASON_CHARACTERS]
    set_status(db, document, "failed", attempt.now)
    log.warning("document failed", document=document.id, reason=reason)
    params = _failure_params(attempt, document, "To try it again, replay its dead letter.")
    notify_admin_now(db, attempt, "document_failed", **params)


def restart(db: Session, document: Document, number: int, now: datetime) -> None:
    """Begin start `number`: reset what is known of the previous one, whose updates are ignored from now on."""
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
    """The `number`th check of this start's status, DOCUMENT_DEADLINE seconds from now.

    After a replay its effect has a suffix: a job with the id of one that has already run would not be created.
    """
    again = replay_suffix(attempt)
    args: dict[str, str | int] = {"document": document.id, "start": document.start, "number": number}
    return FollowUp(
        f"documents.deadline.{document.start}.{number}{again}",
        CHECK_DOCUMENT,
        {**args, "replayed": again} if again else args,
        delay_seconds=attempt.settings.document_deadline,
        ordering_key=document.id,
    )


def _failure_params(attempt: Attempt, document: Document, next_step: str) -> dict[str, str]:
    """The parameters of the template document_failed; `about` makes each failure a notification of its own."""
    params = {
        "document": readable(document.document_id),
        "id": document.id,
        "reason": document.error or "",
        "next": next_step,
    }
    return {**params, "about": f"{document.id}/{document.start}{replay_suffix(attempt)}"}
