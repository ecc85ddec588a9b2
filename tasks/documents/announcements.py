"""Notifications about the end of a document: a mail to `notify.email`, a handoff to each agent of `notify.agents`."""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from tasks.agents import handoff
from tasks.handler import Attempt, FollowUp, replay_suffix
from tasks.models import Document, Notification
from tasks.notifications.kinds import Message
from tasks.notifications.notify import notify_customer
from tasks.signed_link import MAIL_LINK_SECONDS, create_link


def notify_waiters(db: Session, attempt: Attempt, document: Document) -> list[FollowUp]:
    """Enqueue the notifications that the document is completed or has failed.

    Each start of the document is reported once, and once more for each replay.
    """
    mail = [_mail(db, attempt, document, document.notify_email)] if document.notify_email else []
    return [*mail, *handoff.enqueue_handoffs(db, attempt, document)]


def _mail(db: Session, attempt: Attempt, document: Document, email: str) -> FollowUp:
    kind = "document_not_ready" if document.status == "failed" else "document_ready"
    about = f"{document.id}/{document.start}{replay_suffix(attempt)}"
    return notify_customer(db, attempt, kind, email, locale=document.notify_locale, about=about)


def document_ready(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the document is completed. The link is new each time: SQL and its backups hold none."""
    document = _load_document(db, notification)
    if document is None or document.status != "completed":
        return None
    link = create_link(attempt.settings, document.id, attempt.now, MAIL_LINK_SECONDS)
    return Message({"document": readable(document.document_id), "link": link})


def document_not_ready(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the document has failed: not if it has been started again."""
    document = _load_document(db, notification)
    if document is None or document.status != "failed":
        return None
    return Message({"document": readable(document.document_id)})


def _load_document(db: Session, notification: Notification) -> Document | None:
    """Rows of earlier versions that it is ready have its id among their params."""
    return db.get(Document, str(notification.params.get("link_to") or notification.about.partition("/")[0]))


def readable(document_id: str) -> str:
    """The id as it stands in a mail: the requester of a document chooses it, and it must not become a link.

    Mail programs make links of addresses in plain text, so in an id with one of :/@ or www each point becomes [.]
    """
    return document_id.replace(".", "[.]") if re.search(r"[:/@]|www", document_id, re.IGNORECASE) else document_id
