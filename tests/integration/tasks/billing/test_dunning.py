"""Dunning after a failed payment: grace period, suspension, and recovery by a payment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.billing.payments import end_grace_period, retry_payment
from tasks.handler import FollowUp
from tasks.ingest import identify_stripe_event
from tasks.models import Entitlement, Invoice, Notification, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.notifications import notify
from tests.support.business import NOW, Business
from tests.support.lives import T0, Happened, buy_access, invoice, subscription
from tests.support.messages import decide, says
from tests.support.peers import Answer, Mailbox, Peer, Stripe

LAST_TRY: dict[str, Any] = {"next_payment_attempt": None}
AFTER_EVT_1 = {"id": "evt_1", "type": "invoice.payment_failed"}


def status(business: Business) -> str:
    return str(business.one(select(Subscription.status)))


def has_access(business: Business) -> bool:
    return business.one(select(Entitlement)).revoked_at is None


def messages(business: Business) -> list[tuple[str, str]]:
    """(kind, audience) of all messages."""
    return sorted((row.kind, row.audience) for row in business.all(select(Notification)))


def states(business: Business, table: type[PaymentGrace] | type[PaymentRetry]) -> list[str]:
    return [row.state for row in business.all(select(table).order_by(table.invoice, table.number))]


def only(follow_ups: list[FollowUp], task: str) -> FollowUp:
    (found,) = [follow_up for follow_up in follow_ups if follow_up.task == task]
    return found


def end_of(business: Business, follow_up: FollowUp, event: str = "evt_1") -> list[FollowUp]:
    """Run the job at the end of a grace period."""
    return business.follow(end_grace_period, follow_up, AFTER_EVT_1, event_id=event)


def given_up(business: Business) -> FollowUp:
    """A subscription whose grace period is over; returns the job that ended it."""
    buy_access(business)
    grace = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    end_of(business, grace)
    return grace


def test_after_stripes_last_attempt_the_grace_period_starts_and_access_stays(business: Business) -> None:
    business.settings["PAYMENT_GRACE_SECONDS"] = "7200"
    buy_access(business)
    grace = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    assert (grace.args, grace.delay_seconds) == ({"invoice": "in_1", "number": 1}, 7200)
    assert grace.ordering_key == "stripe:cus_1"
    assert (states(business, PaymentGrace), status(business)) == (["planned"], "past_due")
    assert has_access(business)


def test_while_stripe_will_retry_no_grace_period_starts(business: Business) -> None:
    assert [owed.task for owed in invoice("payment_failed", 1, 10).to(business)] == ["tasks.notifications.send"]


def test_a_failure_without_next_payment_attempt_starts_no_grace_period(business: Business) -> None:
    event = invoice("payment_failed", 1, 10)
    del event.object["next_payment_attempt"]
    event.to(business)
    assert states(business, PaymentGrace) == []


@pytest.mark.parametrize("unpaid_first", [True, False])
def test_the_status_unpaid_starts_the_grace_period_too_whichever_event_comes_first(
    business: Business, unpaid_first: bool
) -> None:
    events = [invoice("payment_failed", 1, 10), subscription("updated", 2, 20, "unpaid")]
    for event in reversed(events) if unpaid_first else events:
        event.to(business)
    assert (states(business, PaymentGrace), status(business)) == (["planned"], "past_due")


def test_if_stripe_retries_after_all_the_grace_period_is_cancelled_and_a_new_one_may_start(
    business: Business,
) -> None:
    first = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    invoice("payment_failed", 2, 20).to(business)
    assert states(business, PaymentGrace) == ["cancelled"]
    invoice("payment_failed", 3, 30, **LAST_TRY).to(business)
    assert states(business, PaymentGrace) == ["cancelled", "planned"]
    assert end_of(business, first) == []
    assert status(business) == "past_due"


def test_after_the_grace_period_access_is_revoked_and_customer_and_administrator_are_notified(
    business: Business,
) -> None:
    given_up(business)
    assert (status(business), states(business, PaymentGrace)) == ("suspended", ["over"])
    assert not has_access(business)
    assert messages(business) == [
        ("payment_failed", "customer"),
        ("payment_given_up", "admin"),
        ("subscription_suspended", "customer"),
    ]


def test_a_grace_period_whose_job_was_lost_gets_another_job_a_day_later(business: Business) -> None:
    lost = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    business.now += timedelta(seconds=lost.delay_seconds) + timedelta(days=1, seconds=1)
    again = only(subscription("updated", 2, 20, "past_due").to(business), "tasks.payments.end_grace")
    assert (again.args, again.delay_seconds) == (lost.args, 0)
    assert subscription("updated", 3, 30, "past_due").to(business) == []
    end_of(business, again, "evt_2")
    assert end_of(business, lost) == []
    assert (status(business), states(business, PaymentGrace)) == ("suspended", ["over"])


def test_a_grace_period_ends_once(business: Business) -> None:
    grace = given_up(business)
    business.run(end_grace_period, AFTER_EVT_1, effect="replayed under another key", args=grace.args)
    assert len(messages(business)) == 3


def test_a_failure_after_the_suspension_leaves_it_suspended(business: Business) -> None:
    given_up(business)
    invoice("payment_failed", 2, 20, id="in_2").to(business)
    assert status(business) == "suspended"


@pytest.mark.parametrize("first", ["paid", "payment_succeeded"])
def test_a_payment_lifts_the_suspension_and_notifies_once_whichever_event_comes_first(
    business: Business, first: str
) -> None:
    given_up(business)
    second = {"paid": "payment_succeeded", "payment_succeeded": "paid"}[first]
    invoice(first, 2, 30).to(business)
    assert (status(business), has_access(business)) == ("active", True)
    invoice(second, 3, 30).to(business)
    assert messages(business).count(("payment_recovered", "customer")) == 1


def test_a_payment_in_the_grace_period_cancels_it_and_its_job_does_nothing(business: Business) -> None:
    buy_access(business)
    grace = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    invoice("paid", 2, 20).to(business)
    assert states(business, PaymentGrace) == ["cancelled"]
    assert end_of(business, grace) == []
    assert (status(business), has_access(business)) == ("active", True)


@pytest.mark.parametrize("first", ["payment_failed", "marked_uncollectible"])
def test_a_written_off_invoice_has_a_grace_period_before_the_suspension(business: Business, first: str) -> None:
    buy_access(business)
    events = [invoice("payment_failed", 1, 10), invoice("marked_uncollectible", 2, 20, **LAST_TRY)]
    owed = [job for event in (events if first == "payment_failed" else events[::-1]) for job in event.to(business)]
    assert (status(business), has_access(business)) == ("past_due", True)
    end_of(business, only(owed, "tasks.payments.end_grace"), "evt_2" if first == "payment_failed" else "evt_1")
    assert (status(business), has_access(business)) == ("suspended", False)
    assert ("payment_given_up", "admin") in messages(business)


@pytest.mark.parametrize("number", [2, 3])
def test_writing_an_invoice_off_restores_no_access_until_a_newer_one_is_paid(business: Business, number: int) -> None:
    given_up(business)
    invoice("marked_uncollectible", number, 20).to(business)
    assert (status(business), has_access(business)) == ("suspended", False)
    renewal(number + 1).to(business)
    assert (status(business), has_access(business)) == ("active", True)


def test_writing_an_invoice_off_cancels_its_retry_and_starts_its_grace_period(
    business: Business, played: PlayedStripe
) -> None:
    fail(business)
    played.invoice = "uncollectible"
    only(invoice("marked_uncollectible", 2, 20).to(business), "tasks.payments.end_grace")
    assert (states(business, PaymentRetry), states(business, PaymentGrace)) == (["cancelled"], ["planned"])


def test_a_voided_invoice_ends_its_dunning_without_a_message(business: Business) -> None:
    given_up(business)
    invoice("voided", 2, 20).to(business)
    assert (status(business), has_access(business)) == ("active", True)
    assert ("payment_recovered", "customer") not in messages(business)


def renewal(number: int = 2, at: int = 40, **fields: Any) -> Happened:
    """The next month's invoice, which a new card pays."""
    return invoice("paid", number, at, id="in_2", created=T0 + at - 1, **fields)


def test_a_newer_invoice_that_is_paid_ends_the_suspension_though_the_old_one_stays_open(business: Business) -> None:
    given_up(business)
    renewal().to(business)
    assert (status(business), has_access(business)) == ("active", True)
    assert messages(business).count(("payment_recovered", "customer")) == 1
    subscription("updated", 3, 41, "active").to(business)
    assert (status(business), has_access(business)) == ("active", True)


def test_a_newer_invoice_of_zero_ends_no_suspension(business: Business) -> None:
    given_up(business)
    renewal(total=0, amount_due=0).to(business)
    assert (status(business), has_access(business)) == ("suspended", False)


def test_a_grace_period_of_an_old_invoice_suspends_nothing_once_a_newer_one_is_paid(
    business: Business,
) -> None:
    buy_access(business)
    grace = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    assert renewal().to(business) == []
    end_of(business, grace)
    assert (status(business), has_access(business)) == ("active", True)
    assert messages(business) == [("payment_failed", "customer"), ("payment_given_up", "admin")]


@pytest.mark.parametrize(
    ("fields", "word"),
    [({}, "incomplete"), ({}, "incomplete_expired"), ({"billing_reason": "subscription_create"}, None)],
)
@pytest.mark.parametrize("number", [1, 2])
def test_an_unpaid_sign_up_only_has_its_failure_recorded(
    business: Business, played: PlayedStripe, number: int, fields: dict[str, Any], word: str | None
) -> None:
    played.subscription, played.fields = word, fields
    assert invoice("payment_failed", number, 10, **fields, **LAST_TRY).to(business) == []
    assert len(business.all(select(PaymentFailure))) == 1
    assert states(business, PaymentRetry) == states(business, PaymentGrace) == []
    assert status(business) == (word or "incomplete")


def test_a_retry_that_was_planned_before_it_was_known_to_be_a_sign_up_is_cancelled(
    business: Business, played: PlayedStripe
) -> None:
    retry = fail(business)
    played.subscription = "incomplete"
    subscription("created", 2, 0, "incomplete").to(business)
    assert (states(business, PaymentRetry), retried(business, retry)) == (["cancelled"], [])


def test_a_bank_debit_that_is_returned_after_the_subscription_started_is_an_ordinary_failure(
    business: Business,
) -> None:
    subscription("created", 1, 0, "active").to(business)
    invoice("payment_failed", 2, 10, billing_reason="subscription_create", **LAST_TRY).to(business)
    assert (status(business), states(business, PaymentGrace)) == ("past_due", ["planned"])
    assert messages(business) == [("payment_failed", "customer")]


SENT: dict[str, Any] = {"collection_method": "send_invoice", **LAST_TRY}
DAY = 86400


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("due_in", "begins_in"), [(30 * DAY, 30 * DAY), (-DAY, 0)])
def test_the_grace_period_of_a_sent_invoice_starts_at_its_due_date(
    business: Business, number: int, due_in: int, begins_in: int
) -> None:
    business.settings["PAYMENT_GRACE_SECONDS"] = "7200"
    due_date = int(business.now.timestamp()) + due_in
    owed = invoice("payment_failed", number, 10, due_date=due_date, **SENT).to(business)
    assert only(owed, "tasks.payments.end_grace").delay_seconds == begins_in + 7200
    assert messages(business) == [("payment_failed", "customer")]


def test_a_sent_invoice_without_a_due_date_is_announced_and_never_suspends(business: Business) -> None:
    assert [owed.task for owed in invoice("payment_failed", 1, 10, **SENT).to(business)] == ["tasks.notifications.send"]
    assert (status(business), states(business, PaymentGrace)) == ("past_due", [])


def test_a_sent_invoice_is_never_charged(business: Business, played: PlayedStripe) -> None:
    played.fields = SENT | {"due_date": int(business.now.timestamp())}
    tasks = [owed.task for owed in invoice("payment_failed", 1, 10).to(business)]
    assert tasks == ["tasks.notifications.send", "tasks.payments.end_grace"]
    assert states(business, PaymentRetry) == []


def test_a_customer_without_a_failure_message_gets_no_recovery_message(business: Business) -> None:
    assert invoice("paid", 1, 10).to(business) == []
    assert invoice("payment_failed", 2, 5).to(business) == []
    assert messages(business) == []
    assert len(business.all(select(PaymentFailure))) == 1


def test_cancelling_ends_dunning_and_access(business: Business) -> None:
    buy_access(business)
    grace = only(invoice("payment_failed", 1, 10, **LAST_TRY).to(business), "tasks.payments.end_grace")
    subscription("deleted", 2, 20, "canceled").to(business)
    assert (status(business), states(business, PaymentGrace)) == ("canceled", ["cancelled"])
    assert not has_access(business)
    assert end_of(business, grace) == []
    assert messages(business) == [("payment_failed", "customer")]


def test_an_action_required_asks_the_customer_to_confirm(business: Business) -> None:
    invoice("payment_action_required", 1, 10).to(business)
    assert business.one(select(PaymentFailure.kind)) == "payment_action_required"
    message = decide(business, "payment_failed")
    assert message is not None
    assert message.template == "payment_action_required"
    assert message.values["link"] == "https://invoice.stripe.com/i/1"


@pytest.mark.parametrize("confirm_at", [9, 10, 11])
@pytest.mark.parametrize("first", ["payment_action_required", "payment_failed"])
def test_one_attempt_that_needs_confirmation_is_announced_once_whichever_event_comes_first(
    business: Business, first: str, confirm_at: int
) -> None:
    events = [invoice("payment_action_required", 2, confirm_at), invoice("payment_failed", 1, 10)]
    owed = [job for event in (events if first == events[0].type[8:] else events[::-1]) for job in event.to(business)]
    assert {job.args["notification"] for job in owed} == {"notify:payment_failed:in_1:1"}
    message = decide(business, "payment_failed")
    assert message is not None
    assert message.template == "payment_action_required"
    invoice("payment_failed", 3, 86400, attempt_count=2).to(business)
    assert messages(business) == [("payment_failed", "customer")] * 2


def test_a_failure_already_announced_is_not_announced_again_as_one_to_confirm(
    business: Business, mailbox: Mailbox
) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + "&to={email}"
    (job,) = invoice("payment_failed", 1, 10).to(business)
    business.follow(notify.send, job)
    assert invoice("payment_action_required", 2, 10).to(business) == []
    assert messages(business) == [("payment_failed", "customer")]
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_mails_ask_for_the_remaining_amount_and_confirm_the_full_one(business: Business, number: int) -> None:
    part = {"amount_due": 1999, "amount_remaining": 999}
    grace = only(invoice("payment_failed", 1, 10, **part, **LAST_TRY).to(business), "tasks.payments.end_grace")
    assert says(business, "payment_failed")["amount"] == "9.99 EUR"
    end_of(business, grace)
    assert says(business, "payment_given_up")["amount"] == "9.99 EUR"
    assert says(business, "subscription_suspended")["amount"] == "9.99 EUR"
    invoice("paid", number + 1, 20, amount_due=1999, amount_remaining=0).to(business)
    assert says(business, "payment_recovered")["amount"] == "19.99 EUR"


def test_a_customer_that_is_an_account_is_a_customer_too(business: Business) -> None:
    event = invoice("payment_failed", 2, 10, customer=None, customer_account="acct_9", **LAST_TRY)
    grace = only(event.to(business), "tasks.payments.end_grace")
    assert business.one(select(Subscription.customer)) == "acct_9"
    assert (
        grace.ordering_key
        == identify_stripe_event(json.dumps({"id": "e", "type": "t", "data": {"object": event.object}})).ordering_key
    )
    changed = subscription("updated", 3, 20, "canceled")
    changed.object.update(customer=None, customer_account="acct_9")
    changed.to(business)
    assert status(business) == "canceled"


def test_the_end_of_a_trial_is_announced_while_the_trial_runs(business: Business) -> None:
    business.settings |= {"STRIPE_API_KEY": "", "ADMIN_NOTIFY_URLS": ""}
    subscription("deleted", 2, 20, "canceled").to(business)
    assert subscription("trial_will_end", 1, 10, "trialing").to(business) == []


def test_an_invoice_without_a_subscription_has_dunning_too(business: Business) -> None:
    event = invoice("payment_failed", 2, 10, parent=None, **LAST_TRY)
    end_of(business, only(event.to(business), "tasks.payments.end_grace"), event.id)
    assert messages(business) == [("payment_failed", "customer"), ("payment_given_up", "admin")]


def test_the_administrator_is_notified_of_each_of_two_invoices_given_up_by_one_event(business: Business) -> None:
    for number in (1, 2):
        invoice("payment_failed", number, 10, id=f"in_{number}").to(business)
    jobs = subscription("updated", 3, 20, "unpaid").to(business)
    assert len({job.effect for job in jobs}) == len(jobs) == 4  # a message and a grace period each
    for grace in [job for job in jobs if job.task == "tasks.payments.end_grace"]:
        end_of(business, grace, "evt_3")
    about = sorted(row.about for row in business.all(select(Notification).filter_by(kind="payment_given_up")))
    assert about == ["in_1", "in_2"]
    assert messages(business).count(("subscription_suspended", "customer")) == 1


# --- with an API key: the current state wins --------------------------------------------------------------------------


class PlayedStripe:
    """A Stripe in one state, by the newest API version, that declines every payment unless it `pays`."""

    def __init__(self) -> None:
        self.invoice, self.pays = "open", False
        self.subscription: str | None = "past_due"  # None: it knows none
        self.fields: dict[str, Any] = {}

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            if not self.pays:
                return Answer(402, body=b'{"error": {"type": "card_error", "decline_code": "insufficient_funds"}}')
            self.invoice = "paid"
        if "/subscriptions/" in request.path and self.subscription is None:
            return Answer(404, body=b'{"error": {"type": "invalid_request_error"}}')
        return Answer(200, body=json.dumps(self._object(request.path)).encode())

    def _object(self, path: str) -> dict[str, Any]:
        if "/subscriptions/" in path:
            return {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": self.subscription}
        if "/invoice_payments" in path or "/checkout/sessions" in path:
            return {"object": "list", "data": []}
        return invoice("payment_failed", 2, 10, status=self.invoice, **self.fields).object


@pytest.fixture
def played(business: Business) -> Iterator[PlayedStripe]:
    state = PlayedStripe()
    with Peer(state) as peer:
        business.settings |= {
            "STRIPE_API_KEY": Stripe.KEY,
            "STRIPE_API_BASE": peer.url,
            "PAYMENT_RETRY_SCHEDULE": "1h",
            "PAYMENT_GRACE_SECONDS": "3600",
        }
        yield state


def fail(business: Business) -> FollowUp:
    """A failure; returns the retry planned for it."""
    return only(invoice("payment_failed", 1, 10).to(business), "tasks.payments.retry_payment")


def retried(business: Business, retry: FollowUp) -> list[FollowUp]:
    return business.follow(retry_payment, retry, AFTER_EVT_1)


@pytest.mark.usefixtures("played")
def test_after_our_last_retry_the_grace_period_starts(business: Business) -> None:
    grace = only(retried(business, fail(business)), "tasks.payments.end_grace")
    assert (grace.delay_seconds, states(business, PaymentRetry)) == (3600, ["declined"])
    end_of(business, grace)
    assert status(business) == "suspended"


def test_a_payment_without_an_event_is_found_at_the_end_of_the_grace_period(
    business: Business, played: PlayedStripe
) -> None:
    grace = only(retried(business, fail(business)), "tasks.payments.end_grace")
    played.invoice, played.subscription = "paid", "active"
    end_of(business, grace)
    assert (status(business), states(business, PaymentGrace)) == ("active", ["cancelled"])
    failures = [("payment_failed", "customer")] * 2  # the first and the last
    assert messages(business) == [*failures, ("payment_recovered", "customer")]


def test_a_successful_retry_restores_everything_and_its_event_sends_no_second_message(
    business: Business, played: PlayedStripe
) -> None:
    retry = fail(business)
    played.pays, played.subscription = True, "active"
    retried(business, retry)
    assert (status(business), states(business, PaymentRetry)) == ("active", ["paid"])
    invoice("paid", 2, 20).to(business)
    assert messages(business) == [("payment_failed", "customer"), ("payment_recovered", "customer")]


def test_a_cancelled_retry_makes_no_call_to_stripe(business: Business, played: PlayedStripe) -> None:
    retry = fail(business)
    played.invoice, played.subscription = "paid", "active"
    invoice("paid", 2, 20).to(business)
    assert states(business, PaymentRetry) == ["cancelled"]
    business.settings["STRIPE_API_BASE"] = "http://127.0.0.1:9"
    assert retried(business, retry) == []


def test_the_current_object_at_stripe_wins_over_the_event(business: Business, played: PlayedStripe) -> None:
    played.invoice, played.subscription = "paid", "trialing"
    assert invoice("payment_failed", 1, 10).to(business) == []
    assert (business.one(select(Invoice.state)), status(business)) == ("paid", "trialing")


def test_with_an_api_key_every_order_ends_with_the_state_at_stripe(business: Business, played: PlayedStripe) -> None:
    played.invoice, played.subscription = "paid", "active"
    events: list[Happened] = [
        subscription("deleted", 1, 90, "canceled"),
        invoice("paid", 2, 30),
        subscription("created", 3, 0, "incomplete"),
        invoice("payment_failed", 4, 99),
    ]
    for event in events:
        event.to(business)
    assert status(business) == "active"


def test_the_end_of_a_trial_is_mailed_to_the_address_that_stripe_has(
    business: Business, stripe: Stripe, mailbox: Mailbox
) -> None:
    business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": stripe.url}
    customer = stripe.customer("pm_card_visa", email="grace@example.com", **{"preferred_locales[0]": "de"})
    business.settings["CUSTOMER_NOTIFY_URLS"] = mailbox.url + "&to={email}"
    event = subscription("trial_will_end", 1, 10, "trialing")
    event.object.update({"customer": customer, "trial_end": int(NOW.timestamp()) + 86400})
    told_of_it = only(event.to(business), "tasks.notifications.send")
    business.follow(notify.send, told_of_it)
    row = business.one(select(Notification))
    assert (row.kind, row.email, row.locale) == ("trial_will_end", "grace@example.com", "de")
