"""Messages about payments, trials and orders say what is true when they are sent, once per fact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.billing.payments import end_grace_period
from tasks.billing.payouts import payout_failed
from tasks.billing.reminders import invoice_upcoming
from tasks.handler import FollowUp
from tasks.models import Notification, Order
from tasks.notifications.notify import send
from tests.integration.tasks.test_handler_example import failed as failed_payout
from tests.support.business import NOW, Business
from tests.support.lives import Happened, checkout, invoice, item, subscription
from tests.support.messages import decide, says
from tests.support.peers import Answer, Mailbox, Peer, Stripe

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

LAST_TRY: dict[str, Any] = {"next_payment_attempt": None}
DAY = 86400
TODAY = int(NOW.timestamp())


@pytest.fixture(autouse=True)
def mailed(business: Business, mailbox: Mailbox) -> Mailbox:
    business.settings |= {
        "CUSTOMER_NOTIFY_URLS": f"{mailbox.url}&to={{email}}",
        "ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com",
        "PAYMENT_RETRY_SCHEDULE": "off",
    }
    return mailbox


def deliver(business: Business, jobs: list[FollowUp], event_id: str = "evt_1") -> None:
    """Send what these jobs would send."""
    for job in jobs:
        if job.task == "tasks.notifications.send":
            business.follow(send, job, event_id=event_id)


def happen(business: Business, event: Happened) -> list[FollowUp]:
    """An event, and all messages that it leads to; returns its other jobs."""
    jobs = event.to(business)
    deliver(business, jobs, event.id)
    return jobs


def end_grace(business: Business, jobs: list[FollowUp], event_id: str) -> None:
    (grace,) = [job for job in jobs if job.task == "tasks.payments.end_grace"]
    deliver(business, business.follow(end_grace_period, grace, {"id": event_id}, event_id=event_id), event_id)


def subjects(mailbox: Mailbox, to: str = "ada@example.com") -> list[str]:
    return [str(mail["Subject"]) for recipients, mail in mailbox.mails if recipients == [to]]


def text(mailbox: Mailbox) -> str:
    """The plain text of the newest mail to the customer."""
    mails = [mail for recipients, mail in mailbox.mails if recipients == ["ada@example.com"]]
    body = mails[-1].get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def states(business: Business, kind: str) -> list[str]:
    return list(business.all(select(Notification.state).filter_by(kind=kind).order_by(Notification.id)))


# --- what a payment leads to ----------------------------------------------------------------------------------------


def fail_for_good(business: Business, number: int = 1, **fields: Any) -> None:
    event = invoice("payment_failed", number, 10, **LAST_TRY, **fields)
    end_grace(business, happen(business, event), event.id)


def test_who_pays_after_the_end_of_the_subscription_is_told_so_and_the_administrator_too(
    business: Business, mailbox: Mailbox
) -> None:
    fail_for_good(business)
    happen(business, subscription("deleted", 2, 20, "canceled"))
    for number in (3, 4):  # invoice.paid and invoice.payment_succeeded
        happen(business, invoice("paid", number, 30))
    assert subjects(mailbox)[-1] == "Your payment of 19.99 EUR has arrived; your subscription has ended"
    assert "in order again" not in text(mailbox)
    told = subjects(mailbox, "admin@example.com")
    assert told.count("A payment of 19.99 EUR came after the end of a subscription: cus_1") == 1


def test_who_pays_one_of_two_failed_invoices_is_told_which_is_open_with_its_link(
    business: Business, mailbox: Mailbox
) -> None:
    other = {"id": "in_2", "amount_due": 500, "hosted_invoice_url": "https://pay.example/2"}
    fail_for_good(business)
    fail_for_good(business, 2, **other)
    happen(business, invoice("paid", 3, 30))
    assert subjects(mailbox)[-1] == "Thank you for your payment of 19.99 EUR; another invoice is still open"
    assert "Still open: in_2 (5.00 EUR)." in text(mailbox)
    assert "Pay the next invoice: https://pay.example/2" in text(mailbox)
    happen(business, invoice("paid", 4, 40, **other))
    assert subjects(mailbox)[-1] == "Thank you: your payment of 5.00 EUR has arrived"
    assert "in order again" in text(mailbox)


def test_a_thank_you_says_that_all_is_in_order_only_if_the_subscription_is_active(
    business: Business, mailbox: Mailbox
) -> None:
    happen(business, invoice("payment_failed", 1, 10))
    happen(business, subscription("updated", 2, 20, "paused"))
    happen(business, invoice("paid", 3, 30))
    assert subjects(mailbox)[-1] == "Thank you: your payment of 19.99 EUR has arrived"
    assert "in order again" not in text(mailbox)


# --- failures -------------------------------------------------------------------------------------------------------


def test_the_first_and_the_last_failure_that_one_event_leads_to_have_jobs_of_their_own(business: Business) -> None:
    """Retries by our schedule are jobs of the event of the first failure."""
    first = invoice("payment_failed", 1, 10).to(business)
    last = subscription("updated", 1, 20, "unpaid").to(business)
    effects = [job.effect for job in (*first, *last) if job.task == "tasks.notifications.send"]
    assert effects == ["notify.payment_failed.in_1.1", "notify.payment_failed.in_1.last1"]


@pytest.mark.parametrize("at", [100, 101])
def test_two_events_about_one_failed_attempt_are_one_mail(business: Business, mailbox: Mailbox, at: int) -> None:
    happen(business, invoice("payment_failed", 1, 100))
    happen(business, invoice("payment_failed", 2, at))
    assert len(subjects(mailbox)) == 1
    happen(business, invoice("payment_failed", 3, 200, attempt_count=2))
    assert len(subjects(mailbox)) == 2


def test_a_failure_names_the_next_attempt_and_the_last_one_the_day_of_the_suspension(
    business: Business, mailbox: Mailbox
) -> None:
    happen(business, invoice("payment_failed", 1, 10, next_payment_attempt=TODAY + 3 * DAY))
    assert "We will try again on March 4, 2026." in text(mailbox)
    happen(business, invoice("payment_failed", 2, 20, attempt_count=2, **LAST_TRY))
    assert subjects(mailbox) == [
        "Your payment of 19.99 EUR failed",
        "Please pay 19.99 EUR: we will not try again",
    ]
    assert "your subscription will be suspended on March 4, 2026." in text(mailbox)
    assert "try again on" not in text(mailbox)


def test_no_day_of_a_suspension_is_named_while_the_subscription_is_paused(business: Business, mailbox: Mailbox) -> None:
    """stripe-versions.md, note 8: a pause by a failed payment has stopped it already."""
    subscription("paused", 2, 11, "paused").to(business)
    happen(business, invoice("payment_failed", 1, 10, **LAST_TRY))
    assert subjects(mailbox) == ["Please pay 19.99 EUR: we will not try again"]
    assert "will be suspended" not in text(mailbox)


def test_without_a_link_nobody_is_asked_to_follow_it(business: Business, mailbox: Mailbox) -> None:
    happen(business, invoice("payment_failed", 1, 10, hosted_invoice_url=None))
    assert "now" not in text(mailbox)
    assert ":" not in text(mailbox).replace("Hello", "")


def test_a_message_about_an_invoice_that_is_paid_by_now_is_not_sent(business: Business, mailbox: Mailbox) -> None:
    jobs = invoice("payment_failed", 1, 10).to(business)
    invoice("paid", 2, 20).to(business)
    deliver(business, jobs)
    assert (subjects(mailbox), states(business, "payment_failed")) == ([], ["obsolete"])


def test_a_message_to_who_has_cancelled_meanwhile_is_not_sent(business: Business, mailbox: Mailbox) -> None:
    jobs = invoice("payment_failed", 1, 10).to(business)
    subscription("deleted", 2, 20, "canceled").to(business)
    deliver(business, jobs)
    assert (subjects(mailbox), states(business, "payment_failed")) == ([], ["obsolete"])


def test_the_first_of_two_failures_is_not_announced_after_the_second(business: Business, mailbox: Mailbox) -> None:
    first = invoice("payment_failed", 1, 10).to(business)
    second = invoice("payment_failed", 2, 20, attempt_count=2).to(business)
    deliver(business, first)
    deliver(business, second, "evt_2")
    assert (len(subjects(mailbox)), states(business, "payment_failed")) == (1, ["obsolete", "sent"])


def test_an_invoice_to_be_paid_by_hand_is_called_overdue_once_it_is(business: Business, mailbox: Mailbox) -> None:
    sent = {"collection_method": "send_invoice", "due_date": TODAY + 10 * DAY, **LAST_TRY}
    (mail,) = [job for job in invoice("payment_failed", 1, 10, **sent).to(business) if "notify" in job.effect]
    assert mail.delay_seconds == 10 * DAY
    business.now += timedelta(days=10)
    deliver(business, [mail])
    assert subjects(mailbox) == ["Invoice in_1 over 19.99 EUR is overdue"]
    assert "suspended on March 14, 2026" in text(mailbox)


def test_who_loses_a_subscription_for_want_of_payment_is_told_once(business: Business, mailbox: Mailbox) -> None:
    happen(business, invoice("payment_failed", 1, 10))
    for number in (2, 3):
        ended = subscription("deleted", number, 20, "canceled")
        ended.object["cancellation_details"] = {"reason": "payment_failed"}
        happen(business, ended)
    assert subjects(mailbox)[1:] == ["Your subscription has ended"]
    assert "19.99 EUR for invoice in_1" in text(mailbox)


def test_a_subscription_that_the_customer_cancelled_ends_without_a_mail(business: Business, mailbox: Mailbox) -> None:
    ended = subscription("deleted", 2, 20, "canceled")
    ended.object["cancellation_details"] = {"reason": "cancellation_requested"}
    happen(business, ended)
    assert subjects(mailbox) == []


def test_kinds_that_are_switched_off_are_not_sent(business: Business, mailbox: Mailbox) -> None:
    business.settings["MESSAGES_OFF"] = "receipt,payment_failed"
    happen(business, checkout("completed", 1, 1))
    happen(business, invoice("payment_failed", 2, 10))
    assert (subjects(mailbox), states(business, "receipt"), states(business, "payment_failed")) == (
        [],
        ["off"],
        ["off"],
    )


def test_payouts_that_two_events_report_as_failed_are_one_message(business: Business, mailbox: Mailbox) -> None:
    for event in ("evt_1", "evt_2"):
        deliver(business, business.run(payout_failed, failed_payout(), event_id=event), event)
    assert subjects(mailbox, "admin@example.com") == ["A payout of 2500.00 EUR failed"]


# --- orders ---------------------------------------------------------------------------------------------------------


def test_a_receipt_never_names_what_only_a_computer_knows(business: Business, mailbox: Mailbox) -> None:
    happen(business, checkout("completed", 1, 1, metadata={}))
    assert "Products" not in text(mailbox)
    assert "default" not in text(mailbox)


def test_a_receipt_names_products_with_their_quantity_and_a_short_number(business: Business, mailbox: Mailbox) -> None:
    lines = {"data": [item("item", "prod_1") | {"description": "The Club"}], "has_more": False}
    happen(business, checkout("completed", 1, 1, id="cs_live_a1B2c3D4e5F6", metadata={}, line_items=lines))
    assert "Products:  2 × The Club" in text(mailbox)
    assert "Order:     c3D4e5F6" in text(mailbox)
    assert "cs_live" not in text(mailbox)


def test_the_receipt_of_a_trial_says_when_it_ends_and_what_follows(business: Business, mailbox: Mailbox) -> None:
    trial(30)("created", 1, 0).to(business)
    happen(business, checkout("completed", 2, 1, amount_total=0))
    assert "Your trial runs until March 31, 2026." in text(mailbox)
    assert "After that, the subscription costs 39.98 EUR." in text(mailbox)


def test_nobody_is_asked_to_order_again_what_is_still_collected(business: Business, mailbox: Mailbox) -> None:
    unpaid = {"payment_status": "unpaid"}
    subscription("created", 1, 0, "incomplete").to(business)
    happen(business, invoice("payment_failed", 2, 10, billing_reason="subscription_create"))
    happen(business, checkout("async_payment_failed", 3, 10, **unpaid))
    assert "Nothing was charged" not in text(mailbox)
    assert "Pay 19.99 EUR now: https://invoice.stripe.com/i/1" in text(mailbox)


@pytest.mark.parametrize(("status", "mails"), [("active", 0), ("past_due", 0), ("incomplete_expired", 1)])
def test_a_failed_order_is_announced_only_if_its_invoice_is_not(
    business: Business, mailbox: Mailbox, status: str, mails: int
) -> None:
    subscription("created", 1, 0, status).to(business)
    happen(business, checkout("async_payment_failed", 3, 10, payment_status="unpaid"))
    assert len(subjects(mailbox)) == mails
    assert not mails or "Please order again" in text(mailbox)


# --- reminders ------------------------------------------------------------------------------------------------------


def trial(days: int, **fields: Any) -> Callable[[str, int, int], Happened]:
    """Events of a subscription whose trial ends in this many days, for two of 19.99 EUR."""

    def event(kind: str, number: int, at: int) -> Happened:
        made = subscription(kind, number, at, "trialing", "club")
        made.object["items"]["data"][0]["price"]["unit_amount"] = 1999
        made.object.update({"trial_end": TODAY + days * DAY, "currency": "eur", **fields})
        return made

    return event


def known_address(business: Business) -> None:
    invoice("paid", 90, 0, id="in_90", total=0, amount_due=0, billing_reason="subscription_create").to(business)


def test_a_trial_is_announced_seven_days_before_its_end_with_the_amount(business: Business, mailbox: Mailbox) -> None:
    known_address(business)
    planned = trial(30)("created", 1, 0).to(business)
    again = trial(30)("updated", 2, 1).to(business)
    (mail,) = [job for job in (*planned, *again) if "trial" in job.effect]
    assert mail.delay_seconds == 23 * DAY
    business.settings |= {"PORTAL_URL": "https://portal.example", "SUPPORT_EMAIL": "help@shop.example"}
    business.now += timedelta(days=23)
    deliver(business, [mail])
    assert subjects(mailbox) == ["Your trial ends on March 31, 2026"]
    assert "The first payment is 39.98 EUR." in text(mailbox)
    assert "Manage or cancel your subscription: https://portal.example" in text(mailbox)
    happen(business, trial(30)("trial_will_end", 3, 27 * DAY))
    assert len(subjects(mailbox)) == 1


def test_the_reminder_of_a_trial_that_was_extended_waits_for_its_new_end(business: Business, mailbox: Mailbox) -> None:
    known_address(business)
    (first,) = [job for job in trial(30)("created", 1, 0).to(business) if "trial" in job.effect]
    (second,) = [job for job in trial(60)("updated", 2, 10).to(business) if "trial" in job.effect]
    business.now += timedelta(days=23)
    deliver(business, [first])
    assert subjects(mailbox) == []
    business.now += timedelta(days=30)
    deliver(business, [second], "evt_2")
    assert subjects(mailbox) == ["Your trial ends on April 30, 2026"]


@pytest.mark.parametrize(
    "fields",
    [
        {"cancel_at_period_end": True},
        {"cancel_at": TODAY + 2 * DAY},
        {"trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}}},
        {"trial_settings": {"end_behavior": {"missing_payment_method": "pause"}}},
        {"pause_collection": {"behavior": "void"}},
    ],
    ids=["cancelled", "cancelled for then", "cancels without a card", "pauses without a card", "not collected"],
)
def test_who_will_not_be_charged_is_not_told_so(business: Business, mailbox: Mailbox, fields: dict[str, Any]) -> None:
    known_address(business)
    happen(business, trial(2, **fields)("trial_will_end", 1, 10))
    assert (subjects(mailbox), states(business, "trial_will_end")) == ([], ["obsolete"])


def test_who_takes_back_the_cancellation_is_reminded_after_all(business: Business, mailbox: Mailbox) -> None:
    known_address(business)
    happen(business, trial(2, cancel_at_period_end=True)("trial_will_end", 1, 10))
    trial(2)("updated", 2, 20).to(business)
    happen(business, trial(2)("trial_will_end", 3, 30))
    assert len(subjects(mailbox)) == 1


def test_the_trial_of_an_item_is_announced_without_the_price_of_its_offer(business: Business, mailbox: Mailbox) -> None:
    """stripe-versions.md, note 5: the subscription has no trial_end, and the item has the trial's price until then."""
    known_address(business)
    event = trial(3, trial_end=None)("trial_will_end", 1, 10)
    offer = {"start_date": TODAY - DAY, "end_date": TODAY + 3 * DAY, "trial_offer": "to_1"}
    event.object["items"]["data"][0]["current_trial"] = offer
    happen(business, event)
    assert subjects(mailbox) == ["Your trial ends on March 4, 2026"]
    assert "EUR" not in text(mailbox)


def test_two_events_about_the_end_of_a_trial_are_one_mail(business: Business, mailbox: Mailbox) -> None:
    known_address(business)
    for number in (1, 2):
        happen(business, trial(2)("trial_will_end", number, 10))
    assert len(subjects(mailbox)) == 1


def upcoming(days: int = 365, **fields: Any) -> dict[str, Any]:
    line = {"period": {"start": TODAY + 20 * DAY, "end": TODAY + (20 + days) * DAY}}
    made = invoice("upcoming", 2, 10, amount_due=12000, next_payment_attempt=TODAY + 20 * DAY, **fields).object
    del made["id"]
    return {"id": "evt", "created": TODAY, "data": {"object": made | {"lines": {"data": [line]}}}}


def renew(business: Business, event: str, **fields: Any) -> list[FollowUp]:
    jobs = business.run(invoice_upcoming, upcoming(**fields), event_id=event)
    deliver(business, jobs, event)
    return jobs


def test_the_renewal_of_a_yearly_plan_is_announced_once(business: Business, mailbox: Mailbox) -> None:
    subscription("created", 1, 0, "active").to(business)
    for event in ("evt_5", "evt_6"):
        renew(business, event)
    assert subjects(mailbox) == ["Your subscription renews on March 21, 2026"]
    assert "The payment will be 120.00 EUR." in text(mailbox)


def test_a_monthly_plan_is_announced_only_if_that_is_set(business: Business, mailbox: Mailbox) -> None:
    subscription("created", 1, 0, "active").to(business)
    assert renew(business, "evt_5", days=31) == []
    business.settings["RENEWAL_REMINDER_PERIOD"] = "28d"
    renew(business, "evt_6", days=31)
    assert len(subjects(mailbox)) == 1


@pytest.mark.parametrize(
    ("status", "fields"), [("active", {"cancel_at_period_end": True}), ("trialing", {}), ("canceled", {})], ids=str
)
def test_a_renewal_that_will_not_come_is_not_announced(
    business: Business, mailbox: Mailbox, status: str, fields: dict[str, Any]
) -> None:
    event = subscription("updated", 1, 0, status)
    event.object.update(fields)
    event.to(business)
    renew(business, "evt_5")
    assert (subjects(mailbox), states(business, "renewal_reminder")) == ([], ["obsolete"])


# --- with a key -----------------------------------------------------------------------------------------------------


class KnowingStripe:
    """A Stripe with these objects, by path, that knows nothing else."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Request) -> Answer:
        found = self.objects.get(request.path.partition("?")[0].removeprefix("/v1/"))
        missing = {"error": {"type": "invalid_request_error", "code": "resource_missing"}}
        return Answer(200 if found else 404, body=json.dumps(found or missing).encode())


@pytest.fixture
def knowing(business: Business) -> Iterator[KnowingStripe]:
    state = KnowingStripe()
    with Peer(state) as peer:
        business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        yield state


def test_stripes_current_invoice_decides_although_its_event_is_still_on_the_way(
    business: Business, mailbox: Mailbox, knowing: KnowingStripe
) -> None:
    jobs = invoice("payment_failed", 1, 10).to(business)
    knowing.objects["invoices/in_1"] = invoice("paid", 2, 20, status="paid").object
    deliver(business, jobs)
    assert (subjects(mailbox), states(business, "payment_failed")) == ([], ["obsolete"])


def test_a_failure_names_the_last_digits_of_the_card_and_goes_to_the_current_address(
    business: Business, mailbox: Mailbox, knowing: KnowingStripe
) -> None:
    card = {"id": "pm_1", "type": "card", "card": {"last4": "4242"}}
    error = {"code": "card_declined", "payment_method": card}
    knowing.objects |= {
        "invoices/in_1": invoice("payment_failed", 1, 10, status="open", payment_intent="pi_1").object,
        "payment_intents/pi_1": {"id": "pi_1", "status": "requires_payment_method", "last_payment_error": error},
        "customers/cus_1": {"id": "cus_1", "email": "ada@example.com", "preferred_locales": ["nl", "de-CH"]},
    }
    happen(business, invoice("payment_failed", 1, 10, customer_email="old@example.com"))
    assert "Die Karte oder das Konto mit den Endziffern 4242 wurde abgelehnt." in text(mailbox)
    assert subjects(mailbox) == ["Ihre Zahlung über 19.99 EUR ist fehlgeschlagen"]


@pytest.mark.parametrize(("method", "mails"), [("pm_1", 1), (None, 0)])
def test_a_trial_that_needs_a_card_is_announced_if_the_customer_has_one(
    business: Business, mailbox: Mailbox, knowing: KnowingStripe, method: str | None, mails: int
) -> None:
    event = trial(2, trial_settings={"end_behavior": {"missing_payment_method": "cancel"}})("trial_will_end", 1, 10)
    knowing.objects |= {
        "subscriptions/sub_1": event.object,
        "customers/cus_1": {
            "id": "cus_1",
            "email": "ada@example.com",
            "invoice_settings": {"default_payment_method": method},
        },
        "invoices/create_preview": {"object": "invoice", "amount_due": 4757, "currency": "eur"},
    }
    happen(business, event)
    assert len(subjects(mailbox)) == mails
    assert not mails or "The first payment is 47.57 EUR." in text(mailbox)  # with tax


# --- of an earlier version ------------------------------------------------------------------------------------------


def owed_before(business: Business, kind: str, about: str, **params: str) -> FollowUp:
    """A row as earlier versions enqueued it, and its job."""
    key = f"stripe:evt_0:notify.{kind}"
    row = Notification(id=key, kind=kind, audience="customer", about=about, email="ada@example.com", params=params)
    row.customer, row.state, row.created_at = "cus_1", "owed", NOW
    with business.sessions() as db:
        db.add(row)
        db.commit()
    return FollowUp(f"notify.{kind}", "tasks.notifications.send", {"notification": key})


def test_what_an_earlier_version_enqueued_is_sent_and_decided_anew(business: Business, mailbox: Mailbox) -> None:
    invoice("payment_failed", 1, 10).to(business)
    invoice("payment_failed", 2, 10, id="in_2").to(business)
    invoice("paid", 3, 20, id="in_2").to(business)
    trial(3)("updated", 4, 30).to(business)
    checkout("completed", 5, 1, id="cs_1", subscription=None, invoice=None, mode="payment").to(business)
    about = {"amount": "19.99 EUR", "link": "https://invoice.stripe.com/i/1"}
    jobs = [
        owed_before(business, "payment_failed", "in_1", invoice="in_1", **about),
        owed_before(business, "payment_action_required", "in_2", invoice="in_2", **about),
        owed_before(business, "trial_will_end", "sub_1", subscription="sub_1", trial_end="2026-03-04"),
        owed_before(business, "receipt", "", order="cs_1", amount="19.99 EUR", products="club"),
    ]
    deliver(business, jobs, "evt_0")
    assert sorted(subjects(mailbox)) == [
        "Your order: 19.99 EUR",
        "Your payment of 19.99 EUR failed",
        "Your trial ends on March 4, 2026",
    ]


def test_an_order_that_was_paid_after_all_is_not_announced_as_failed(business: Business, mailbox: Mailbox) -> None:
    failed = checkout("async_payment_failed", 1, 10, payment_status="unpaid", subscription=None, mode="payment")
    jobs = failed.to(business)
    with business.sessions() as db:
        db.get_one(Order, "cs_1").state = "fulfilled"
        db.commit()
    deliver(business, jobs)
    assert (subjects(mailbox), decide(business, "order_payment_failed")) == ([], None)


def test_the_decision_has_the_amount_that_is_still_owed(business: Business) -> None:
    invoice("payment_failed", 1, 10, amount_remaining=999).to(business)
    assert says(business, "payment_failed")["amount"] == "9.99 EUR"


def test_a_trial_is_announced_to_the_address_of_the_order_if_no_invoice_has_one(
    business: Business, mailbox: Mailbox
) -> None:
    happen(business, checkout("completed", 1, 1))
    happen(business, trial(2)("trial_will_end", 2, 10))
    assert subjects(mailbox) == ["Your order: 19.99 EUR", "Your trial ends on March 3, 2026"]


def test_what_another_site_sells_leads_to_no_message(business: Business, mailbox: Mailbox) -> None:
    business.settings["OWN_PRODUCTS"] = "prod_ours"
    known_address(business)
    trial(30)("created", 1, 0).to(business)
    happen(business, trial(2)("trial_will_end", 2, 10))
    renew(business, "evt_3")
    happen(business, invoice("payment_failed", 4, 20, **LAST_TRY))
    ended = subscription("deleted", 5, 30, "canceled", "club")
    ended.object["cancellation_details"] = {"reason": "payment_failed"}
    happen(business, ended)
    assert mailbox.mails == []


def test_who_had_the_unpaid_invoice_credited_is_not_thanked_for_a_payment(business: Business, mailbox: Mailbox) -> None:
    """Stripe calls it paid. https://docs.stripe.com/invoicing/integration/programmatic-credit-notes"""
    happen(business, subscription("created", 1, 0, "active", "club"))
    happen(business, invoice("payment_failed", 3, 10, id="in_2"))
    credited = {"total": 1999, "pre_payment_credit_notes_amount": 1999, "amount_due": 0, "amount_remaining": 0}
    happen(business, invoice("paid", 5, 20, id="in_2", **credited, **LAST_TRY))
    assert len(subjects(mailbox)) == 1
