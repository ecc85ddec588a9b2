"""Notifications about the end of a document: a mail to `notify.email`, a handoff to each agent of `notify.agents`."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tasks.agents import handoff
from tasks.handler import Attempt, FollowUp, replay_suffix
from tasks.models import Document
from tasks.notifications.notify import notify_customer
from tasks.signed_link import MAIL_LINK_SECONDS, create_link


def notify_waiters(db: Session, attempt: Attempt, document: Document) -> list[FollowUp]:
    """Enqueue the notifications that the document is completed or has failed.

    Each start of the document is reported once, and once more for each replay.
    """
    mail = [_mail(db, attempt, document, document.notify_email)] if document.notify_email else []
    return [*mail, *handoff.enqueue_handoffs(db, attempt, document)]


def _mail(db: Session, attempt: Attempt, document: Document, email: str) -> FollowUp:
    if document.status == "failed":
        about = f"{document.id}/{document.start}{replay_suffix(attempt)}"
        return notify_customer(db, attempt, "document_not_ready", email, about=about, document=document.document_id)
    url = create_link(attempt.settings, document.id, attempt.now, MAIL_LINK_SECONDS)
    return notify_customer(db, attempt, "document_ready", email, document=document.document_id, link=url)
