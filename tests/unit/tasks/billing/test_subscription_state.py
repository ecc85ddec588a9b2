"""The pure functions of subscription state, as tables."""

from __future__ import annotations

import itertools

import pytest

from tasks.billing.subscription_state import (
    INVOICE_ORDER,
    SUBSCRIPTION_ORDER,
    Debt,
    Version,
    derive_status,
    is_newer,
    is_sign_up,
)

# What is known of a subscription: Stripe's status, observed at 10, and facts about it; and the status that follows.
# `owed` is an invoice that failed at 20, after that; `older` is one that failed at 5. `given up`: its grace is over.
STATUSES = [
    (None, "", "active"),
    (None, "owed", "past_due"),
    (None, "owed given up", "suspended"),
    ("active", "", "active"),
    ("active", "owed", "past_due"),
    ("active", "owed given up", "suspended"),
    ("active", "older", "active"),  # Stripe has seen it in order since
    ("active", "older given up", "active"),
    ("active", "same second", "active"),
    ("active", "older given up, owed", "past_due"),
    ("trialing", "owed", "past_due"),
    ("trialing", "older given up", "trialing"),
    ("past_due", "", "past_due"),
    ("past_due", "paid since", "active"),
    ("past_due", "owed, paid since", "past_due"),
    ("past_due", "older", "past_due"),
    ("past_due", "older given up", "suspended"),
    ("unpaid", "owed", "past_due"),  # in the grace period
    ("unpaid", "older given up", "suspended"),
    ("unpaid", "", "unpaid"),
    ("unpaid", "paid since", "unpaid"),  # Stripe's status is otherwise
    ("incomplete", "owed", "incomplete"),
    ("paused", "owed", "paused"),
    ("paused", "owed given up", "paused"),  # the customer heard of the pause
    ("canceled", "owed given up", "canceled"),
    ("incomplete_expired", "owed", "incomplete_expired"),
    ("a word of next year", "", "a word of next year"),
    ("a word of next year", "owed given up", "a word of next year"),
]
FAILED_AT = {"owed": 20, "older": 5, "same second": 10}


@pytest.mark.parametrize(("word", "facts", "status"), STATUSES)
def test_a_subscriptions_status_is_computed_from_the_known_facts(word: str | None, facts: str, status: str) -> None:
    known = [fact for fact in facts.split(", ") if fact and fact != "paid since"]
    debts = [Debt(FAILED_AT[fact.removesuffix(" given up")], fact.endswith(" given up")) for fact in known]
    for order in (debts, debts[::-1]):
        assert derive_status(word, 10, order, paid_since="paid since" in facts) == status


@pytest.mark.parametrize(
    ("word", "billing_reason", "sent", "first"),
    [
        ("incomplete", None, False, True),
        ("incomplete_expired", "subscription_create", False, True),
        ("active", "subscription_create", False, False),
        ("past_due", "subscription_create", False, False),  # a bank debit was returned after it had started
        (None, "subscription_create", False, True),
        (None, "subscription_create", True, False),
        (None, "subscription_cycle", False, False),
        (None, None, False, False),
    ],
)
def test_only_a_subscription_that_has_not_started_is_a_sign_up(
    word: str | None, billing_reason: str | None, sent: bool, first: bool
) -> None:
    assert is_sign_up(word, billing_reason, sent=sent) is first


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (Version("active", 1, "evt_z"), Version("past_due", 2, "evt_a")),
        (Version("incomplete", 1, "evt_z"), Version("active", 1, "evt_a")),  # created and updated in one second
        (Version("active", 1, "evt_a"), Version("active", 1, "evt_b")),
        (Version("active", 9, "evt_z"), Version("canceled", 1, "evt_a")),  # a final state stays
        (Version("a word of next year", 1, "evt_z"), Version("active", 1, "evt_a")),
    ],
)
def test_of_two_events_the_same_one_is_newer_in_either_order(older: Version, newer: Version) -> None:
    assert is_newer(newer, older, SUBSCRIPTION_ORDER)
    assert not is_newer(older, newer, SUBSCRIPTION_ORDER)


def test_no_event_is_newer_than_itself() -> None:
    seen = Version("open", 1, "evt_a")
    assert not is_newer(seen, seen, INVOICE_ORDER)


def test_any_order_of_invoice_events_ends_with_the_same_one() -> None:
    events = [
        Version("open", 5, "a"),
        Version("open", 7, "b"),
        Version("paid", 6, "c"),
        Version("uncollectible", 8, "d"),
    ]
    ends = set()
    for order in itertools.permutations(events):
        last: Version | None = None
        for seen in order:
            last = seen if is_newer(seen, last, INVOICE_ORDER) else last
        ends.add(last)
    assert ends == {Version("paid", 6, "c")}


def test_a_version_fetched_later_or_in_the_same_second_wins_and_an_earlier_one_loses() -> None:
    known = Version("active", 10, "evt_z", fetched=True)
    assert [
        is_newer(Version("past_due", at, "evt_a", fetched=True), known, SUBSCRIPTION_ORDER) for at in (9, 10, 11)
    ] == [
        False,
        True,
        True,
    ]


def test_a_final_state_that_was_fetched_wins_even_over_a_version_from_a_clock_that_was_ahead() -> None:
    ahead = Version("active", 99, "evt_a", fetched=True)
    assert is_newer(Version("canceled", 10, "evt_b", fetched=True), ahead, SUBSCRIPTION_ORDER)
