"""Who may use what: the decision alone, as a table."""

from __future__ import annotations

import pytest

from tasks.orders.access import Known, why_not


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (Known(), ""),
        (Known(subscription_status="active"), ""),
        (Known(subscription_status="trialing"), ""),
        (Known(subscription_status="past_due"), ""),
        (Known(subscription_status="suspended"), "subscription_suspended"),
        (Known(subscription_status="canceled"), "subscription_canceled"),
        (Known(subscription_status="unpaid"), "subscription_unpaid"),
        (Known(subscription_status="paused"), "subscription_paused"),
        (Known(subscription_status="incomplete"), "subscription_incomplete"),
        (Known(subscription_status="incomplete_expired"), "subscription_incomplete_expired"),
        (Known(subscription_status="a word of next year"), "subscription_a word of next year"),
        (Known(refunded=True), "refunded"),
        (Known(customer_deleted=True), "customer_deleted"),
        (Known(disputes=frozenset({"lost", "won"})), "dispute_lost"),
        (Known(disputes=frozenset({"won", "warning_closed", "needs_response", "under_review"})), ""),
        (Known(subscription_status="active", refunded=True), "refunded"),
    ],
)
def test_a_fulfilled_order_gives_access_unless_something_is_known_against_it(known: Known, reason: str) -> None:
    assert why_not("fulfilled", known) == reason


@pytest.mark.parametrize("state", ["expired", "awaiting_payment", "payment_failed"])
def test_an_order_that_is_not_fulfilled_gives_none(state: str) -> None:
    assert why_not(state, Known(subscription_status="active")) == "not_fulfilled"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("needs_response", "disputed"),
        ("under_review", "disputed"),
        ("warning_needs_response", ""),
        ("warning_under_review", ""),
        ("won", ""),
        ("lost", "dispute_lost"),
    ],
)
def test_an_open_dispute_takes_the_access_away_where_it_is_told_to(status: str, reason: str) -> None:
    assert why_not("fulfilled", Known(disputes=frozenset({status})), while_disputed="revoke") == reason
