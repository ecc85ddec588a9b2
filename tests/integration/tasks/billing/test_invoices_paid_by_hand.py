"""Invoices that are paid by hand: Stripe does not try to collect them, so that no event reports a failure."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tasks.models import Invoice, Notification, PaymentFailure, PaymentGrace
from tasks.notifications import notify
from tests.integration.tasks.billing.test_stripe_decides import (
    BY_HAND,
    LAST_TRY,
    PAID_PLAN,
    RENEWAL,
    end_graces,
    has_access,
    kinds,
    play,
    status,
)
from tests.support.business import Business
from tests.support.lives import T0, buy_access, invoice, subscription
from tests.support.peers import Peer, Stripe, stripe_answers


def test_a_sent_invoice_that_nobody_tried_to_pay_suspends_after_the_grace_period(business: Business) -> None:
    business.settings["CUSTOMER_NOTIFY_URLS"] = "mailto://127.0.0.1:9/?from=shop@example.com&to={email}"
    buy_access(business)
    play(business, *PAID_PLAN, subscription("updated", 4, 2_600_000, "past_due", **BY_HAND))
    assert (status(business), has_access(business)) == ("past_due", True)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)
    assert kinds(business) == ["payment_given_up", "subscription_suspended"]
    for told in business.all(select(Notification)):
        business.run(notify.send, effect=f"send {told.id}", args={"notification": told.id})
    states = {row.kind: row.state for row in business.all(select(Notification))}
    assert states["subscription_suspended"] == "no_address"  # without a key; the administrator is told
    assert set(states) == {"payment_given_up", "subscription_suspended", "no_address"}
    subscription("updated", 6, 9_000_000, "past_due", **BY_HAND).to(business)
    assert len(business.all(select(PaymentGrace))) == 1


def test_a_sent_invoice_that_is_paid_in_its_grace_period_suspends_nothing(business: Business) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, subscription("updated", 4, 2_600_000, "past_due", latest_invoice="in_2", **BY_HAND))
    play(business, invoice("paid", 6, 2_700_000, **RENEWAL, **BY_HAND))
    end_graces(business)
    assert (status(business), has_access(business)) == ("active", True)
    assert kinds(business) == []


def test_an_overdue_invoice_is_dunned_from_its_due_date_and_announced_once(business: Business) -> None:
    business.settings["PAYMENT_GRACE_SECONDS"] = "7200"
    buy_access(business)
    due = int(business.now.timestamp()) - 3600
    play(business, *PAID_PLAN)
    overdue = invoice("overdue", 5, due - T0, due_date=due, **RENEWAL, **BY_HAND, **LAST_TRY)
    mail, grace = overdue.to(business)
    assert mail.task == "tasks.notifications.send"
    assert (grace.args, grace.delay_seconds) == ({"invoice": "in_2", "number": 1}, 7200)
    subscription("updated", 7, due - T0 + 1, "past_due", latest_invoice="in_2", **BY_HAND).to(business)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)
    assert kinds(business) == ["payment_failed", "payment_given_up", "subscription_suspended"]


def test_with_a_key_the_overdue_invoice_is_fetched_and_both_are_told(business: Business) -> None:
    sent = invoice("overdue", 2, 10, status="open", due_date=T0, **RENEWAL, **BY_HAND, **LAST_TRY).object
    late = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "past_due"}
    late |= BY_HAND | {"latest_invoice": "in_2"}
    with Peer(stripe_answers({"/invoices/": sent, "/subscriptions/": late})) as peer:
        business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        buy_access(business)
        subscription("updated", 4, 100, "past_due").to(business)
        assert business.one(select(PaymentFailure.kind)) == "overdue"
        end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)
    assert kinds(business) == ["payment_failed", "payment_given_up", "subscription_suspended"]
    assert business.one(select(Invoice.state)) == "open"


def test_an_overdue_invoice_that_never_failed_suspends_at_the_end_of_its_first_grace_period(business: Business) -> None:
    """It was billed before its collection was changed to by hand: it has no due date, and no event of a failure."""
    billed = invoice("finalized", 2, 10, status="open", **RENEWAL, **LAST_TRY).object
    late = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "past_due"}
    late |= BY_HAND | {"latest_invoice": "in_2"}
    with Peer(stripe_answers({"/invoices/": billed, "/subscriptions/": late})) as peer:
        business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        buy_access(business)
        subscription("updated", 4, 100, "past_due").to(business)
        end_graces(business)
        subscription("updated", 6, 200, "past_due").to(business)
    assert business.all(select(PaymentFailure)) == []
    assert (business.one(select(PaymentGrace.state)), business.one(select(Invoice.state))) == ("over", "open")
    assert (status(business), has_access(business)) == ("suspended", False)
    assert kinds(business) == ["payment_given_up", "subscription_suspended"]


@pytest.mark.parametrize("known", [True, False])
def test_an_overdue_invoice_of_another_site_has_no_grace_period(business: Business, *, known: bool) -> None:
    business.settings["OWN_PRODUCTS"] = "club"
    if known:
        invoice("overdue", 3, 90, due_date=T0 + 80, **RENEWAL, **BY_HAND, **LAST_TRY).to(business)
    subscription("updated", 4, 100, "past_due", "theirs", latest_invoice="in_2", **BY_HAND).to(business)
    assert [row.state for row in business.all(select(PaymentGrace)) if row.state != "cancelled"] == []
    assert status(business) == "past_due"


def test_a_declined_attempt_to_pay_a_sent_invoice_early_changes_nothing_before_it_is_due(business: Business) -> None:
    buy_access(business)
    due = int((business.now + timedelta(days=20)).timestamp())
    play(business, *PAID_PLAN, invoice("payment_failed", 5, 10, due_date=due, **RENEWAL, **BY_HAND, **LAST_TRY))
    assert (status(business), has_access(business)) == ("active", True)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)
