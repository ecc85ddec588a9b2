"""What facts add up to, as tables."""

from __future__ import annotations

import itertools

import pytest

from tasks.billing.subscription_state import (
    INVOICE_WAY,
    SUBSCRIPTION_WAY,
    Seen,
    is_newer,
    is_sign_up,
    next_retry,
    status_of,
    wants_grace,
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
        ("unpaid", "failing", "past_due"),  # the grace time runs
        ("unpaid", "", "unpaid"),
        ("unpaid", "paid_since", "unpaid"),  # Stripe says otherwise
        ("unpaid", "failing given_up", "suspended"),
        ("incomplete", "failing", "incomplete"),
        ("paused", "failing", "paused"),
        ("canceled", "failing given_up", "canceled"),
        ("incomplete_expired", "failing", "incomplete_expired"),
        ("a word of next year", "", "a word of next year"),
    ],
)
def test_a_subscriptions_status_follows_from_what_is_known(word: str | None, facts: str, status: str) -> None:
    known = {name: name in facts.split() for name in ("failing", "given_up", "paid_since")}
    assert status_of(word, **known) == status


@pytest.mark.parametrize(
    ("word", "billing_reason", "sent", "first"),
    [
        ("incomplete", None, False, True),
        ("incomplete_expired", "subscription_create", False, True),
        ("active", "subscription_create", False, False),
        ("past_due", "subscription_create", False, False),  # a bank debit came back after it had begun
        (None, "subscription_create", False, True),
        (None, "subscription_create", True, False),
        (None, "subscription_cycle", False, False),
        (None, None, False, False),
    ],
)
def test_only_a_subscription_that_has_not_begun_is_a_sign_up(
    word: str | None, billing_reason: str | None, sent: bool, first: bool
) -> None:
    assert is_sign_up(word, billing_reason, sent=sent) is first


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (Seen("active", 1, "evt_z"), Seen("past_due", 2, "evt_a")),
        (Seen("incomplete", 1, "evt_z"), Seen("active", 1, "evt_a")),  # created and updated in one second
        (Seen("active", 1, "evt_a"), Seen("active", 1, "evt_b")),
        (Seen("active", 9, "evt_z"), Seen("canceled", 1, "evt_a")),  # what is final stays
        (Seen("a word of next year", 1, "evt_z"), Seen("active", 1, "evt_a")),
    ],
)
def test_of_two_events_the_same_one_is_newer_in_either_order(older: Seen, newer: Seen) -> None:
    assert is_newer(newer, older, SUBSCRIPTION_WAY)
    assert not is_newer(older, newer, SUBSCRIPTION_WAY)


def test_no_event_is_newer_than_itself() -> None:
    seen = Seen("open", 1, "evt_a")
    assert not is_newer(seen, seen, INVOICE_WAY)


def test_any_order_of_invoice_events_ends_with_the_same_one() -> None:
    events = [Seen("open", 5, "a"), Seen("open", 7, "b"), Seen("paid", 6, "c"), Seen("uncollectible", 8, "d")]
    ends = set()
    for order in itertools.permutations(events):
        last: Seen | None = None
        for seen in order:
            last = seen if is_newer(seen, last, INVOICE_WAY) else last
        ends.add(last)
    assert ends == {Seen("paid", 6, "c")}


def test_what_was_fetched_later_or_in_the_same_second_wins_and_earlier_loses() -> None:
    known = Seen("active", 10, "evt_z", fetched=True)
    assert [is_newer(Seen("past_due", at, "evt_a", fetched=True), known, SUBSCRIPTION_WAY) for at in (9, 10, 11)] == [
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
        ((1,), (2, "declined"), False, None, True),  # the schedule was made shorter
        ((), None, False, None, False),
        ((), None, True, None, True),
    ],
)
def test_a_failing_invoice_is_tried_by_the_schedule_and_then_has_its_grace(
    schedule: tuple[int, ...], retry: tuple[int, str] | None, last_word: bool, number: int | None, grace: bool
) -> None:
    assert next_retry(schedule, retry) == number
    assert wants_grace(schedule, retry, last_word) is grace
