"""Each start of a document: hand it to the service, and ask what became of it when nobody calls.

Every start is a job of its own, and its key the idempotency key that the service gets. Every start has a deadline: a
delayed job that asks the service once, and then fetches the result, waits for as long again, or has the document
started again. So whatever gets lost on the way, each document ends: completed, or failed with somebody told.
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
    give_up,
    is_retryable,
    record_progress,
    restart,
    set_status,
    start_download,
)
from tasks.handler import Attempt, FollowUp, GaveUp, replay_suffix
from tasks.models import Document, FormerTask

TOO_LONG = "it has not ended, however often the document service was asked (DOCUMENT_WAITS)"
NO_ANSWER = "the document service has lost the task, or does not tell what became of it"


def submit(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Hand the document to the service and remember its task.

    A failed document is started again by a person only, who replays this job: it is a dead letter until then.
    """
    document, number = _document(attempt, db), int(attempt.args["start"])
    if document.status == "failed" and number >= document.start:
        if not attempt.replays:
            # Of its own failure it tells again: it may have been killed before it was heard.
            told = notify_waiters(db, attempt, document) if number == document.start else []
            db.commit()
            raise GaveUp("the document failed; to start it again, replay this job", told)
        restart(db, document, number, attempt.now)
    if document.start != number or document.status not in UNFINISHED:
        return []
    wanted = ProcessRequest(document.document_id, callback_url(attempt.settings, document.id), document.options)
    try:
        with outside_transaction(db):
            task = document_service.request_processing(attempt.settings, wanted, attempt.key, attempt.now)
    except PermanentError as error:
        raise give_up(attempt, db, document.id, str(error)) from None
    return _record_task_id(attempt, db, number, task)


def _record_task_id(attempt: Attempt, db: Session, number: int, task: str) -> list[FollowUp]:
    document = _document(attempt, db)
    if document.start != number:  # the deadline came first
        insert_if_new(db, FormerTask, task_id=task, document=document.id)
        return []
    document.task_id = task
    if document.status == "submitting":  # else a callback overtook the answer
        document.error = None
        set_status(db, document, "processing", attempt.now)
    return [deadline_job(attempt, document, 1)]


def check_deadline(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Nobody has told how this start ended: ask."""
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    seen = _observed_state(document)
    with outside_transaction(db):
        told = poll_status(attempt, document.task_id)
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    if _observed_state(document) != seen:  # the service called in just this moment
        return [_next_deadline(attempt, document)]
    return _apply_status(attempt, db, document, told)


def poll_status(attempt: Attempt, task: str | None) -> StatusUpdate | None:
    """What the service says of the task; None where it does not say, and asking again is of no use."""
    try:
        return document_service.fetch_status(attempt.settings, task, attempt.now) if task else None
    except PermanentError:
        return None
    except TransientError:
        if attempt.number < attempt.settings.max_attempts:
            raise
        return None


def _apply_status(attempt: Attempt, db: Session, document: Document, told: StatusUpdate | None) -> list[FollowUp]:
    if told is None or (told.status == "completed" and not told.result_url):
        return fail(attempt, db, document, NO_ANSWER, passes=True)
    if told.status == "failed":
        reason = told.error_message or "no reason given"
        return fail(attempt, db, document, reason, passes=is_retryable(reason, attempt.settings.document_retry_errors))
    if _waited_enough(attempt, document, told):
        return fail(attempt, db, document, TOO_LONG, passes=True)
    again = _next_deadline(attempt, document)
    if told.status == "completed":
        effect = f"documents.download.{document.start}.{attempt.args['number']}{replay_suffix(attempt)}"
        return [start_download(attempt, db, document, told, effect), again]
    record_progress(attempt, db, document, told)
    return [again]


def _waited_enough(attempt: Attempt, document: Document, told: StatusUpdate) -> bool:
    """Whether this was the last question, and there is nothing new to fetch."""
    over = int(attempt.args["number"]) >= attempt.settings.document_waits
    return over and (told.status != "completed" or document.status == "downloading")


def _next_deadline(attempt: Attempt, document: Document) -> FollowUp:
    return deadline_job(attempt, document, int(attempt.args["number"]) + 1)


def _observed_state(document: Document) -> tuple[str, int, str | None]:
    return document.status, document.progress, document.task_id


def _document(attempt: Attempt, db: Session) -> Document:
    document = select_for_update(db, Document, str(attempt.args["document"]))
    if document is None:
        raise PermanentError("there is no such document")
    return document
