"""Submitting a document to the service, and polling its status if no callback arrives.

Each start of a document is a job, and the job's key is the idempotency key sent to the service. Each start has a
deadline: a delayed job that polls the service once and then starts the download, schedules the next deadline, or starts
the document again. So every document ends, completed or failed with a notification, even if callbacks are lost.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks.clients import document_service
from tasks.clients.document_service import ProcessRequest, StatusUpdate
from tasks.db.locking import insert_if_new, select_for_update
from tasks.db.transactions import outside_transaction
from tasks.documents.announcements import notify_waiters
from tasks.documents.callback_url import callback_url
from tasks.documents.lifecycle import (
    UNFINISHED,
    deadline_job,
    fail,
    fail_by_service,
    give_up,
    record_progress,
    restart,
    set_status,
    start_download,
)
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Document, FormerTask

TOO_LONG = "the document service did not finish it in time (DOCUMENT_DEADLINE, DOCUMENT_WAITS)"
NO_ANSWER = "the document service does not know the task, or does not return its status"


def submit(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Submit the document to the service and store the id of its task.

    For a failed document this job is a dead letter; its replay starts the document again.
    """
    document, number = _document(attempt, db), int(attempt.args["start"])
    if document.status == "failed" and number >= document.start:
        if not attempt.replays:
            # This job may have been killed after recording its own failure, so it returns those follow-ups again.
            follow_ups = notify_waiters(db, attempt, document) if number == document.start else []
            db.commit()
            raise GaveUp("the document failed; to start it again, replay this job", follow_ups)
        restart(db, document, number, attempt.now)
    if document.start != number or document.status not in UNFINISHED:
        return []
    request = ProcessRequest(document.document_id, callback_url(attempt.settings, document.id), document.options)
    try:
        with outside_transaction(db):
            task = document_service.request_processing(
                attempt.settings, request, attempt.key, attempt.now, attempt.deadline
            )
    except PermanentError as error:
        raise give_up(attempt, db, document.id, str(error)) from None
    return _record_task_id(attempt, db, number, task)


def _record_task_id(attempt: Attempt, db: Session, number: int, task: str) -> list[FollowUp]:
    document = _document(attempt, db)
    if document.start != number:  # the deadline has started it again meanwhile
        insert_if_new(db, FormerTask, task_id=task, document=document.id)
        return []
    document.task_id = task
    if document.status == "submitting":  # otherwise a callback was faster than this response
        document.error = None
        set_status(db, document, "processing", attempt.now)
    return [deadline_job(attempt, document, 1)]


def check_deadline(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The deadline of a start: poll the service, and act on the status it returns."""
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    before = _observed_state(document)
    with outside_transaction(db):
        update = poll_status(attempt, document.task_id)
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    if _observed_state(document) != before:  # a callback arrived during the call
        return [_next_deadline(attempt, document)]
    return _apply_status(attempt, db, document, update)


def poll_status(attempt: Attempt, task: str | None) -> StatusUpdate | None:
    """The task's status at the service; None if it has none, or the last attempt got no response.

    Raises TransientError while the job has attempts left.
    """
    try:
        if not task:
            return None
        return document_service.fetch_status(attempt.settings, task, attempt.now, attempt.deadline)
    except PermanentError:
        return None
    except TransientError:
        if attempt.number < attempt.settings.max_attempts:
            raise
        return None


def _apply_status(attempt: Attempt, db: Session, document: Document, update: StatusUpdate | None) -> list[FollowUp]:
    if update is None or (update.status == "completed" and not update.result_url):
        return fail(attempt, db, document, NO_ANSWER, retryable=True)
    if update.status == "failed":
        return fail_by_service(attempt, db, document, update)
    if _is_overdue(attempt, document, update):
        return fail(attempt, db, document, TOO_LONG, retryable=True)
    again = _next_deadline(attempt, document)
    if update.status == "completed":
        effect = f"documents.download.{document.start}.{attempt.args['number']}{replay_suffix(attempt)}"
        return [start_download(attempt, db, document, update, effect), again]
    record_progress(attempt, db, document, update)
    return [again]


def _is_overdue(attempt: Attempt, document: Document, update: StatusUpdate) -> bool:
    """True if this was the last check (DOCUMENT_WAITS), and there is no new result to download."""
    is_last = int(attempt.args["number"]) >= attempt.settings.document_waits
    return is_last and (update.status != "completed" or document.status == "downloading")


def _next_deadline(attempt: Attempt, document: Document) -> FollowUp:
    return deadline_job(attempt, document, int(attempt.args["number"]) + 1)


def _observed_state(document: Document) -> tuple[str, int, str | None]:
    return document.status, document.progress, document.task_id


def _document(attempt: Attempt, db: Session) -> Document:
    document = select_for_update(db, Document, str(attempt.args["document"]))
    if document is None:
        raise PermanentError("there is no such document")
    return document
