"""Mails about documents: in the language of the request, and only while they are true."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from tasks.documents.announcements import notify_waiters
from tasks.documents.callbacks import create_document
from tasks.handler import FollowUp
from tasks.models import Document, Notification
from tasks.notifications.notify import send
from tests.support.business import Business
from tests.support.peers import Mailbox

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13


def ended(business: Business, mailbox: Mailbox, status: str, locale: str | None) -> FollowUp:
    """The mail about a document that was requested with this language and has this status."""
    business.settings |= {"CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}", "PUBLIC_URL": "https://us.example"}
    notify = {"email": "ada@example.com"} | ({"locale": locale} if locale else {})
    request = {"document_id": "contract-7", "notify": notify}
    business.run(create_document, request, source="api", event_id="doc_1")
    with business.sessions() as db:
        document = db.get_one(Document, "doc_1")
        document.status = status
        (mail,) = notify_waiters(db, business.attempt("documents", "msg_1", None, "end", {}), document)
        db.commit()
    return mail


@pytest.mark.parametrize(
    ("status", "locale", "subject"),
    [
        ("completed", None, "Your document is ready"),
        ("completed", "de-AT", "Ihr Dokument ist fertig"),
        ("failed", "fr", "Votre document n'a pas pu être préparé"),
        ("failed", "nl", "Your document could not be prepared"),
    ],
)
def test_a_mail_is_in_the_language_of_the_request(
    business: Business, mailbox: Mailbox, status: str, locale: str | None, subject: str
) -> None:
    business.follow(send, ended(business, mailbox, status, locale), source="documents", event_id="msg_1")
    ((_, mail),) = mailbox.mails
    assert mail["Subject"] == subject


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_mail_about_a_document_that_was_started_again_is_not_sent(
    business: Business, mailbox: Mailbox, status: str
) -> None:
    mail = ended(business, mailbox, status, None)
    with business.sessions() as db:
        db.get_one(Document, "doc_1").status = "submitting"
        db.commit()
    business.follow(send, mail, source="documents", event_id="msg_1")
    assert (mailbox.mails, business.one(select(Notification.state))) == ([], "obsolete")


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_what_an_earlier_version_enqueued_is_sent(business: Business, mailbox: Mailbox, status: str) -> None:
    ended(business, mailbox, status, None)
    with business.sessions() as db:
        row = db.scalars(select(Notification)).one()
        row.email = "ada@example.com"
        if status == "completed":
            row.about, row.params = "", {"document": "contract-7", "link_to": "doc_1"}
        else:
            row.about, row.params = "doc_1/1", {"document": "contract-7"}
        db.commit()
        args = {"notification": row.id}
    business.run(send, effect="notify", args=args, source="documents", event_id="msg_1")
    ((_, mail),) = mailbox.mails
    assert "contract-7" in str(mail.get_body(("plain",)))
