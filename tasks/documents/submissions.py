"""Each start of a document: hand it to the service, and ask what became of it when nobody calls.

Every start is a job of its own, and its key the idempotency key that the service gets. Every start has a deadline: a
delayed job that asks the service once, and then fetches the result, waits for as long again, or has the document
started again. So whatever gets lost on the way, each document ends: completed, or failed with somebody told.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks.clients import document_service
from tasks.clients.document_service import Told, Wanted
from tasks.db.locking import insert_if_new, select_for_update
from tasks.documents.announcements import tell
from tasks.documents.callback_url import callback_url
from tasks.documents.lifecycle import (
    UNFINISHED,
    advance,
    deadline_job,
    fail,
    give_up,
    may_pass,
    pick_up,
    restart,
    step,
)
from tasks.handler import Attempt, FollowUp, GaveUp, replayed
from tasks.models import Document, FormerTask

TOO_LONG = "it has not ended, however often the document service was asked (DOCUMENT_WAITS)"
NO_ANSWER = "the document service has lost the task, or does not tell what became of it"


def start(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Hand the document to the service and remember its task.

    A failed document is started again by a person only, who replays this job: it is a dead letter until then.
    """
    document, number = _document(attempt, db), int(attempt.args["start"])
    if document.status == "failed" and number >= document.start:
        if not attempt.replays:
            # Of its own failure it tells again: it may have been killed before it was heard.
            told = tell(db, attempt, document) if number == document.start else []
            db.commit()
            raise GaveUp("the document failed; to start it again, replay this job", told)
        restart(db, document, number, attempt.now)
    if document.start != number or document.status not in UNFINISHED:
        return []
    wanted = Wanted(document.document_id, callback_url(attempt.settings, document.id), document.options)
    db.commit()  # no transaction stays open over a call
    try:
        task = document_service.submit(attempt.settings, wanted, attempt.key, attempt.now)
    except PermanentError as error:
        raise give_up(attempt, db, document.id, str(error)) from None
    return _begun(attempt, db, number, task)


def _begun(attempt: Attempt, db: Session, number: int, task: str) -> list[FollowUp]:
    document = _document(attempt, db)
    if document.start != number:  # the deadline came first
        insert_if_new(db, FormerTask, task_id=task, document=document.id)
        return []
    document.task_id = task
    if document.status == "submitting":  # else a callback overtook the answer
        document.error = None
        step(db, document, "processing", attempt.now)
    return [deadline_job(attempt, document, 1)]


def deadline(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Nobody has told how this start ended: ask."""
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    seen = _standing(document)
    db.commit()  # no transaction stays open over a call
    told = asked(attempt, document.task_id)
    document = _document(attempt, db)
    if document.start != attempt.args["start"] or document.status not in UNFINISHED:
        return []
    if _standing(document) != seen:  # the service called in just this moment
        return [_next_deadline(attempt, document)]
    return _followed(attempt, db, document, told)


def asked(attempt: Attempt, task: str | None) -> Told | None:
    """What the service says of the task; None where it does not say, and asking again is of no use."""
    try:
        return document_service.status(attempt.settings, task, attempt.now) if task else None
    except PermanentError:
        return None
    except TransientError:
        if attempt.number < attempt.settings.max_attempts:
            raise
        return None


def _followed(attempt: Attempt, db: Session, document: Document, told: Told | None) -> list[FollowUp]:
    if told is None or (told.status == "completed" and not told.result_url):
        return fail(attempt, db, document, NO_ANSWER, passes=True)
    if told.status == "failed":
        reason = told.error_message or "no reason given"
        return fail(attempt, db, document, reason, passes=may_pass(reason, attempt.settings.document_retry_errors))
    if _waited_enough(attempt, document, told):
        return fail(attempt, db, document, TOO_LONG, passes=True)
    again = _next_deadline(attempt, document)
    if told.status == "completed":
        effect = f"documents.download.{document.start}.{attempt.args['number']}{replayed(attempt)}"
        return [pick_up(attempt, db, document, told, effect), again]
    advance(attempt, db, document, told)
    return [again]


def _waited_enough(attempt: Attempt, document: Document, told: Told) -> bool:
    """Whether this was the last question, and there is nothing new to fetch."""
    over = int(attempt.args["number"]) >= attempt.settings.document_waits
    return over and (told.status != "completed" or document.status == "downloading")


def _next_deadline(attempt: Attempt, document: Document) -> FollowUp:
    return deadline_job(attempt, document, int(attempt.args["number"]) + 1)


def _standing(document: Document) -> tuple[str, int, str | None]:
    return document.status, document.progress, document.task_id


def _document(attempt: Attempt, db: Session) -> Document:
    document = select_for_update(db, Document, str(attempt.args["document"]))
    if document is None:
        raise PermanentError("there is no such document")
    return document
