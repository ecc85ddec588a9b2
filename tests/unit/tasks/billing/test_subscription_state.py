"""The pure functions of subscription state, as tables."""

from __future__ import annotations

import itertools

import pytest

from tasks.billing.subscription_state import (
    INVOICE_ORDER,
    SUBSCRIPTION_ORDER,
    Version,
    derive_status,
    is_newer,
    is_sign_up,
    next_retry_number,
    should_start_grace,
)


@pytest.mark.parametrize(
    ("word", "facts", "status"),
    [
        (None, "", "active"),
        (None, "failing", "past_due"),
        ("active", "", "active"),
        ("active", "failing", "past_due"),
        ("active", "failing given_up", "suspended"),
        ("past_due", "", "past_due"),
        ("past_due", "paid_since", "active"),
        ("past_due", "failing paid_since", "past_due"),
        ("trialing", "failing", "past_due"),
        ("unpaid", "failing", "past_due"),  # in the grace period
        ("unpaid", "", "unpaid"),
        ("unpaid", "paid_since", "unpaid"),  # Stripe's status is otherwise
        ("unpaid", "failing given_up", "suspended"),
        ("incomplete", "failing", "incomplete"),
        ("paused", "failing", "paused"),
        ("canceled", "failing given_up", "canceled"),
        ("incomplete_expired", "failing", "incomplete_expired"),
        ("a word of next year", "", "a word of next year"),
    ],
)
def test_a_subscriptions_status_is_computed_from_the_known_facts(word: str | None, facts: str, status: str) -> None:
    known = {name: name in facts.split() for name in ("failing", "given_up", "paid_since")}
    assert derive_status(word, **known) == status


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


@pytest.mark.parametrize(
    ("schedule", "retry", "last_word", "number", "grace"),
    [
        ((1, 2), None, False, 1, False),
        ((1, 2), (1, "planned"), True, None, False),
        ((1, 2), (1, "pending"), False, None, False),
        ((1, 2), (1, "declined"), False, 2, False),
        ((1, 2), (2, "declined"), False, None, True),
        ((1, 2), (1, "cancelled"), False, None, False),
        ((1, 2), (2, "stopped"), False, None, False),
        ((1,), (2, "declined"), False, None, True),  # the schedule has been shortened
        ((), None, False, None, False),
        ((), None, True, None, True),
    ],
)
def test_a_failing_invoice_is_retried_by_the_schedule_and_then_has_its_grace_period(
    schedule: tuple[int, ...], retry: tuple[int, str] | None, last_word: bool, number: int | None, grace: bool
) -> None:
    assert next_retry_number(schedule, retry) == number
    assert should_start_grace(schedule, retry, last_word) is grace
