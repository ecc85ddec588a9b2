"""Messages, through Apprise to a real mail server."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import select

from inbox.errors import PermanentError, TransientError
from tasks.handler import Attempt, FollowUp
from tasks.models import Notification
from tasks.notifications.notify import notify_admin, send
from tasks.orders.fulfilment import checkout_completed
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import NOW, Business
from tests.support.peers import Answer, Mailbox, Peer, Stripe

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

TO_CUSTOMER = "&to={email}"


def owed(business: Business, email: str | None = "ada@example.com", **session: Any) -> FollowUp:
    """A receipt that is not sent yet."""
    details = {"customer_details": {"email": email, **session}}
    (receipt,) = business.run(checkout_completed, checkout(**details))
    return receipt


def state(business: Business) -> str:
    return str(business.one(select(Notification.state)))


def test_a_mail_reaches_the_customer_with_the_text_of_the_template(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    assert business.follow(send, owed(business)) == []
    ((recipients, mail),) = mailbox.mails
    assert recipients == ["ada@example.com"]
    assert mail["Subject"] == "Your order: 49.00 USD"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Products:  course" in body.get_content()
    page = mail.get_body(("html",))
    assert page is not None
    assert "Products:  course<br />" in page.get_content()
    row = business.one(select(Notification))
    assert (row.state, row.sent_at) == ("sent", NOW)


def test_a_mail_carries_the_idempotency_key_of_its_job(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business))
    assert mailbox.mails[0][1]["X-Idempotency-Key"] == "notify:receipt:cs_1"


@pytest.mark.parametrize(
    "email", ["ada+shop@example.com", "a.b_c@mail.example.co.uk", "a%40b@example.com", "x=y&z@example.com"]
)
def test_an_address_arrives_as_it_was_whatever_signs_it_has(business: Business, mailbox: Mailbox, email: str) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business, email))
    assert mailbox.mails[0][0] == [email]


@pytest.mark.parametrize(
    "email",
    ["ada@example.com,eve@example.com", "ada@example.com eve@example.com", "Ada <ada@example.com>", "ada", "@"],
)
def test_what_is_no_address_or_several_is_not_written_to_and_the_administrator_is_told_whose(
    business: Business, mailbox: Mailbox, email: str
) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.settings["ADMIN_NOTIFY_URLS"] = mailbox.url + "&to=ops@example.com"
    (told,) = business.follow(send, owed(business, email))
    business.follow(send, told)
    ((recipients, mail),) = mailbox.mails
    assert recipients == ["ops@example.com"]
    assert "Customer:  cus_1" in str(mail.get_body(("plain",)))


def test_a_notification_is_not_sent_twice(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    receipt = owed(business)
    business.follow(send, receipt)
    business.run(send, effect="replayed under another key", args=receipt.args)
    assert len(mailbox.mails) == 1


def test_without_a_notification_service_the_row_records_that_and_the_job_succeeds(business: Business) -> None:
    business.follow(send, owed(business))
    row = business.one(select(Notification))
    assert (row.state, row.sent_at) == ("not_configured", None)


def test_a_service_that_needs_what_is_not_known_is_left_out(business: Business, mailbox: Mailbox) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}{TO_CUSTOMER},json://127.0.0.1:9/{{phone}}"
    business.follow(send, owed(business))
    assert len(mailbox.mails) == 1
    assert state(business) == "sent"


def test_a_phone_number_fills_its_placeholder(business: Business) -> None:
    with Peer(lambda _: Answer(200)) as service:
        business.settings["CUSTOMER_NOTIFY_URLS"] = f"json://{service.host}/sms/{{phone}}"
        business.follow(send, owed(business, None, phone="+49 170 123456"))
        assert unquote(service.requests[0].path) == "/sms/+49 170 123456"


def test_a_mail_server_that_refuses_is_transient_and_the_next_try_delivers(
    business: Business, mailbox: Mailbox
) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    receipt = owed(business)
    mailbox.refusing = True
    with pytest.raises(TransientError) as error:
        business.follow(send, receipt)
    assert str(error.value) == "1 of 1 services rejected the message: mailto"
    assert state(business) == "owed"
    mailbox.refusing = False
    business.follow(send, receipt)
    assert len(mailbox.mails) == 1
    assert state(business) == "sent"


def test_a_service_that_took_it_is_left_alone_while_another_is_tried_again(
    business: Business, mailbox: Mailbox
) -> None:
    answers = iter([500, 200])
    with Peer(lambda _: Answer(next(answers))) as service:
        business.settings["CUSTOMER_NOTIFY_URLS"] = f"{mailbox.url}{TO_CUSTOMER},json://{service.host}/hook"
        receipt = owed(business)
        with pytest.raises(TransientError, match="1 of 2 services rejected the message: json"):
            business.follow(send, receipt)
        business.follow(send, receipt)
        assert (len(mailbox.mails), len(service.requests)) == (1, 2)
    assert state(business) == "sent"


def test_the_administrator_has_services_of_his_own(business: Business, mailbox: Mailbox) -> None:
    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        return [notify_admin(db, attempt, "no_address", message="receipt", event="evt_1")]

    business.settings["CUSTOMER_NOTIFY_URLS"] = "json://127.0.0.1:9/"
    business.settings["ADMIN_NOTIFY_URLS"] = mailbox.url + "&to=ops@example.com"
    (told,) = business.run(handler)
    business.follow(send, told)
    assert mailbox.mails[0][0] == ["ops@example.com"]


def test_a_url_that_apprise_does_not_understand_is_a_dead_letter_that_names_the_settings(business: Business) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = "carrierpigeon://secret"
    with pytest.raises(PermanentError, match="CUSTOMER_NOTIFY_URLS") as error:
        business.follow(send, owed(business))
    assert "secret" not in str(error.value)


def test_nothing_that_is_logged_or_raised_holds_an_address(
    business: Business, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    business.follow(send, owed(business))
    mailbox.refusing = True
    with pytest.raises(TransientError):
        business.run(send, effect="again", args=_another(business).args, event_id="evt_2")
    ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]  # the mail server's own
    assert "ada" not in "".join([*ours, *capfd.readouterr()])


def _another(business: Business) -> FollowUp:
    (receipt,) = business.run(checkout_completed, checkout(id="cs_2"), event_id="evt_2")
    return receipt


def test_a_notification_that_does_not_exist_is_a_dead_letter(business: Business) -> None:
    with pytest.raises(PermanentError, match="no such notification"):
        business.run(send, args={"notification": "nobody"})


def test_a_mail_is_in_the_language_that_stripe_knows_and_goes_to_the_address_it_knows(
    business: Business, mailbox: Mailbox, stripe: Stripe
) -> None:
    customer = stripe.customer("pm_card_visa", email="grace@example.com", **{"preferred_locales[0]": "fr-FR"})

    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    details = {"customer": customer, "customer_details": {"email": "ada@example.com"}, "metadata": {"product": "club"}}
    (receipt,) = business.run(checkout_completed, checkout(**details))
    business.follow(send, receipt)
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["grace@example.com"], "Votre commande : 49,00 USD")


def test_the_administrator_is_notified_of_a_customer_without_an_address(
    business: Business, mailbox: Mailbox, stripe: Stripe
) -> None:
    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + TO_CUSTOMER
    (instead,) = business.follow(send, owed(business, None))
    assert instead.effect == "notify.no_address.notify:receipt:cs_1"
    assert {row.kind: row.state for row in business.all(select(Notification))} == {
        "receipt": "no_address",
        "no_address": "owed",
    }


def test_two_events_about_one_fact_lead_to_one_message(business: Business, mailbox: Mailbox) -> None:
    def handler(attempt: Attempt, db: Any) -> list[FollowUp]:
        return [notify_admin(db, attempt, "payout_failed", about="po_1", amount="1.00 EUR", payout="po_1")]

    business.settings["ADMIN_NOTIFY_URLS"] = mailbox.url + "&to=ops@example.com"
    for event in ("evt_1", "evt_2"):
        (job,) = business.run(handler, event_id=event)
        business.follow(send, job, event_id=event)
    assert len(mailbox.mails) == 1
