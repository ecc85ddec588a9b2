"""The access decision, as a table."""

from __future__ import annotations

import pytest

from tasks.orders.access import AccessFacts, denial_reason


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (AccessFacts(), ""),
        (AccessFacts(subscription_status="active"), ""),
        (AccessFacts(subscription_status="trialing"), ""),
        (AccessFacts(subscription_status="past_due"), ""),
        (AccessFacts(subscription_status="suspended"), "subscription_suspended"),
        (AccessFacts(subscription_status="canceled"), "subscription_canceled"),
        (AccessFacts(subscription_status="unpaid"), "subscription_unpaid"),
        (AccessFacts(subscription_status="paused"), "subscription_paused"),
        (AccessFacts(subscription_status="incomplete"), "subscription_incomplete"),
        (AccessFacts(subscription_status="incomplete_expired"), "subscription_incomplete_expired"),
        (AccessFacts(subscription_status="a word of next year"), "subscription_a word of next year"),
        (AccessFacts(refunded=True), "refunded"),
        (AccessFacts(customer_deleted=True), "customer_deleted"),
        (AccessFacts(disputes=frozenset({"lost", "won"})), "dispute_lost"),
        (AccessFacts(disputes=frozenset({"won", "warning_closed", "needs_response", "under_review"})), ""),
        (AccessFacts(subscription_status="active", refunded=True), "refunded"),
    ],
)
def test_a_fulfilled_order_gives_access_unless_a_fact_denies_it(known: AccessFacts, reason: str) -> None:
    assert denial_reason("fulfilled", known) == reason


@pytest.mark.parametrize("state", ["expired", "awaiting_payment", "payment_failed"])
def test_an_order_that_is_not_fulfilled_gives_no_access(state: str) -> None:
    assert denial_reason(state, AccessFacts(subscription_status="active")) == "not_fulfilled"


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
def test_an_open_dispute_revokes_access_if_the_setting_is_revoke(status: str, reason: str) -> None:
    assert denial_reason("fulfilled", AccessFacts(disputes=frozenset({status})), while_disputed="revoke") == reason
