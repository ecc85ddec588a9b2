"""Tests of the handler of docs/handlers.md; copy this file for your own handler."""

from __future__ import annotations

from typing import Any

import pytest

from inbox.errors import PermanentError
from tasks.billing.payouts import payout_failed
from tasks.notifications.notify import send
from tasks.routes import jobs_for
from tests.support.business import Business
from tests.support.peers import Mailbox

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13


def failed(**payout: Any) -> dict[str, Any]:
    """The event, as Stripe sends it."""
    thing = {"id": "po_1", "amount": 250_000, "currency": "eur", "failure_code": "account_closed", **payout}
    return {"id": "evt_1", "type": "payout.failed", "account": "acct_1", "data": {"object": thing}}


def test_the_administrator_is_notified_once_of_a_failed_payout(business: Business, mailbox: Mailbox) -> None:
    business.settings["ADMIN_NOTIFY_URLS"] = f"{mailbox.url}&to=admin@example.com"
    first, again = business.run(payout_failed, failed()), business.run(payout_failed, failed())
    assert first == again  # a second attempt of the job finds the effect row and changes nothing
    for follow_up in (*first, *again):
        business.follow(send, follow_up)
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["admin@example.com"], "A payout of 2500.00 EUR failed")
    text = mail.get_body(("plain",))
    assert text is not None
    assert all(word in text.get_content() for word in ("po_1", "acct_1", "account_closed"))


@pytest.mark.parametrize("lacking", ["id", "amount", "currency"])
def test_a_payout_without_a_required_field_is_a_dead_letter(business: Business, lacking: str) -> None:
    with pytest.raises(PermanentError, match=f"lacks data.object.{lacking}"):
        business.run(payout_failed, failed(**{lacking: None}))


def test_the_event_is_routed_to_its_queue() -> None:
    (job,) = jobs_for("stripe", "evt_1", "payout.failed", "stripe:acct_1/po_1")
    assert (job.id, job.queue) == ("stripe:evt_1:payouts.payout_failed", "payments")
