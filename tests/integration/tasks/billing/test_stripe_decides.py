"""Stripe's status of a subscription is authoritative: what suspends, what does not, and when it ends."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tasks.billing import messages
from tasks.billing.payments import end_grace_period
from tasks.models import Entitlement, Notification, PaymentFailure, PaymentGrace, Subscription
from tests.support.business import Business
from tests.support.lives import T0, Happened, buy_access, invoice, subscription

LAST_TRY: dict[str, Any] = {"next_payment_attempt": None}
CYCLE = {"billing_reason": "subscription_cycle"}
RENEWAL: dict[str, Any] = {"id": "in_2", "created": T0 + 5, **CYCLE}
ONE_OFF: dict[str, Any] = {"id": "in_2", "billing_reason": "manual", "created": T0 + 1000, "amount_due": 5000}
FORGIVEN: dict[str, Any] = {"status_details": {"uncollectible": {"reason": "user_forgiven"}}}
BY_HAND: dict[str, Any] = {"collection_method": "send_invoice"}
PAUSED: dict[str, Any] = {
    "status_details": {"paused": {"type": "subscription", "subscription": {"type": "final_payment_failure"}}}
}


def status(business: Business) -> str:
    return str(business.one(select(Subscription.status)))


def has_access(business: Business) -> bool:
    return business.one(select(Entitlement)).revoked_at is None


def kinds(business: Business) -> list[str]:
    return sorted(row.kind for row in business.all(select(Notification)))


def end_graces(business: Business) -> None:
    """Run the jobs of all planned grace periods at their time."""
    for number, grace in enumerate(business.all(select(PaymentGrace).filter_by(state="planned"))):
        business.now = max(business.now, grace.due_at)
        args = {"invoice": grace.invoice, "number": grace.number}
        business.run(end_grace_period, {"id": "evt_1"}, effect=f"end {number} of {grace.invoice}", args=args)


def play(business: Business, *events: Happened) -> None:
    for event in events:
        event.to(business)


PAID_PLAN = (
    subscription("created", 1, 0, "active"),
    invoice("paid", 3, 1, billing_reason="subscription_create", **LAST_TRY),
)
OWED = invoice("payment_failed", 5, 10, **RENEWAL, **LAST_TRY)


@pytest.mark.parametrize("seen_after", [True, False])
def test_a_one_off_invoice_of_a_subscription_suspends_nothing_and_has_dunning_of_its_own(
    business: Business, seen_after: bool
) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, invoice("payment_failed", 7, 2000, **ONE_OFF, **LAST_TRY))
    if seen_after:
        subscription("updated", 9, 2001, "active").to(business)
    end_graces(business)
    assert (status(business), has_access(business)) == ("active", True)
    assert kinds(business) == ["payment_failed", "payment_given_up"]


def test_a_one_off_invoice_that_stripe_calls_the_latest_suspends_if_stripe_says_past_due(business: Business) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, invoice("payment_failed", 7, 2000, **ONE_OFF, **LAST_TRY))
    subscription("updated", 9, 2001, "past_due", latest_invoice="in_2").to(business)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)


def test_a_payment_of_a_one_off_invoice_does_not_make_a_past_due_subscription_active(business: Business) -> None:
    play(business, subscription("updated", 1, 0, "past_due"), invoice("paid", 3, 10, **ONE_OFF))
    assert status(business) == "past_due"


def test_a_subscription_in_order_at_stripe_after_the_failure_is_not_suspended(business: Business) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED, subscription("updated", 7, 20, "active"))
    end_graces(business)
    assert (status(business), has_access(business)) == ("active", True)
    assert "subscription_suspended" not in kinds(business)


@pytest.mark.parametrize("pauses", [True, False])
@pytest.mark.parametrize("resumes", [True, False])
def test_a_forgiven_debt_ends_the_dunning(business: Business, pauses: bool, resumes: bool) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED)
    if pauses:
        subscription("paused", 4, 11, "paused", **PAUSED).to(business)
        assert (status(business), has_access(business)) == ("paused", False)
    invoice("marked_uncollectible", 8, 1000, status="uncollectible", **RENEWAL, **FORGIVEN, **LAST_TRY).to(business)
    if pauses or resumes:
        subscription("resumed", 6, 1001, "active").to(business)
    assert [row.state for row in business.all(select(PaymentGrace))] == ["cancelled"]
    assert (status(business), has_access(business)) == ("active", True)
    assert "payment_given_up" not in kinds(business)


@pytest.mark.parametrize("reason", ["max_payment_attempts", "payment_not_received", None])
def test_a_debt_that_was_given_up_suspends_while_stripe_says_past_due(business: Business, reason: str | None) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED, subscription("updated", 7, 11, "past_due"))
    details = {"status_details": {"uncollectible": {"reason": reason}}}
    invoice("marked_uncollectible", 8, 1000, status="uncollectible", **RENEWAL, **details, **LAST_TRY).to(business)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)


def test_a_write_off_while_stripe_says_active_suspends_nothing(business: Business) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED)
    invoice("marked_uncollectible", 8, 1000, status="uncollectible", **RENEWAL, **LAST_TRY).to(business)
    subscription("updated", 6, 1000, "active").to(business)
    end_graces(business)
    assert (status(business), has_access(business)) == ("active", True)


def test_a_subscription_that_is_resumed_after_its_suspension_has_access_again(business: Business) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED, subscription("paused", 4, 11, "paused", **PAUSED))
    end_graces(business)
    assert has_access(business) is False
    play(
        business,
        invoice("paid", 8, 5000, id="in_3", billing_reason="subscription_update", created=T0 + 5000, **LAST_TRY),
        subscription("resumed", 6, 5001, "active"),
    )
    assert (status(business), has_access(business)) == ("active", True)


@pytest.mark.parametrize("pause_first", [True, False])
def test_a_pause_for_want_of_payment_is_told_at_once_and_only_once(business: Business, pause_first: bool) -> None:
    buy_access(business)
    pause = subscription("paused", 4, 11, "paused", **PAUSED)
    play(business, *PAID_PLAN, *((pause, OWED) if pause_first else (OWED, pause)))
    assert kinds(business).count("subscription_suspended") == 1
    told = business.one(select(Notification).filter_by(kind="subscription_suspended"))
    with business.sessions() as db:
        attempt = business.attempt("stripe", "evt_1", {"id": "evt_1"}, "send", {})
        assert messages.subscription_suspended(attempt, db, told) is not None
    end_graces(business)
    assert kinds(business).count("subscription_suspended") == 1
    assert "payment_given_up" in kinds(business)


def test_a_pause_that_somebody_asked_for_is_not_told_as_a_debt(business: Business) -> None:
    asked: dict[str, Any] = {"type": "subscription", "subscription": {"type": "pause_requested"}}
    paused = subscription("paused", 4, 11, "paused", status_details={"paused": asked})
    play(business, *PAID_PLAN, OWED, paused)
    assert "subscription_suspended" not in kinds(business)


@pytest.mark.parametrize("says", ["invoice", "subscription"])
def test_a_period_that_a_coupon_pays_for_ends_the_suspension(business: Business, says: str) -> None:
    buy_access(business)
    play(business, *PAID_PLAN, OWED)
    end_graces(business)
    assert status(business) == "suspended"
    if says == "invoice":
        invoice("paid", 8, 5000, id="in_3", created=T0 + 4999, total=0, amount_due=0, **CYCLE).to(business)
    else:
        subscription("updated", 8, 5001, "active").to(business)
    assert (status(business), has_access(business)) == ("active", True)


# --- one fact, whatever the ids of its events -------------------------------------------------------------------------


@pytest.mark.parametrize("later", [0, 1])
def test_two_events_of_one_failure_are_one_failure_and_one_mail(business: Business, later: int) -> None:
    play(business, invoice("payment_failed", 5, 10, **RENEWAL), invoice("payment_failed", 7, 10 + later, **RENEWAL))
    assert len(business.all(select(PaymentFailure))) == 1
    assert kinds(business) == ["payment_failed"]


def test_each_attempt_that_fails_is_a_failure_of_its_own(business: Business) -> None:
    for attempt in (1, 2):
        invoice("payment_failed", attempt, 10 * attempt, attempt_count=attempt, **RENEWAL).to(business)
    assert len(business.all(select(PaymentFailure))) == 2
    assert kinds(business) == ["payment_failed", "payment_failed"]


def test_of_two_events_of_one_failure_the_newest_values_are_kept_in_any_order(business: Business) -> None:
    older, newer = (invoice("payment_failed", n, 10 + n, hosted_invoice_url=f"https://{n}", **RENEWAL) for n in (5, 7))
    for first, second in ((older, newer), (newer, older)):
        play(business, first, second)
        row = business.one(select(PaymentFailure))
        assert (row.event_id, row.hosted_invoice_url, row.created) == ("evt_7", "https://7", T0 + 17)


def test_an_older_debt_withholds_nothing_while_a_later_invoice_leaves_stripe_s_status_active(
    business: Business,
) -> None:
    buy_access(business)
    renewed = subscription("updated", 3, 5, "active")
    renewed.object["latest_invoice"] = "in_2"
    play(business, renewed, invoice("payment_failed", 5, 10, **LAST_TRY))
    end_graces(business)
    assert (status(business), has_access(business)) == ("active", True)
    latest = invoice("payment_failed", 7, 10, **RENEWAL, **LAST_TRY)
    play(business, latest)
    end_graces(business)
    assert (status(business), has_access(business)) == ("suspended", False)
