"""Who collects a failing invoice, as a table: the schedule, what is known, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.billing.collection import DEBIT_INTERVAL_SECONDS, CollectionFacts, Step, may_debit_again, next_step

DONE: dict[str, Any] = {"stripe_is_done": True}
TRIES: dict[str, Any] = {"stripe_will_try": True}
FLIES: dict[str, Any] = {"in_flight": True}


@pytest.mark.parametrize(
    ("schedule", "retries", "known", "step"),
    [
        ((1, 2), (), {}, Step.RETRY),
        ((1, 2), (), DONE, Step.RETRY),
        ((1, 2), ("planned",), DONE | FLIES, Step.WAIT),
        ((1, 2), ("pending",), DONE | FLIES, Step.WAIT),
        ((1, 2), ("declined",), {}, Step.RETRY),
        ((1, 2), ("declined", "declined"), {}, Step.GRACE),
        ((1, 2), ("declined", "cancelled"), {}, Step.RETRY),  # its day comes again
        ((1, 2), ("declined", "stopped"), {}, Step.WAIT),
        ((1,), ("declined", "declined"), {}, Step.GRACE),  # the schedule has been shortened
        ((1, 2), (), TRIES, Step.WAIT),  # the schedule yields to Stripe
        ((1, 2), ("declined", "declined"), TRIES, Step.WAIT),
        ((1, 2), (), {"held": True}, Step.WAIT),  # … and to a person who switched collection off
        ((1, 2), (), DONE | {"held": True}, Step.GRACE),
        ((), (), {}, Step.WAIT),
        ((), (), DONE, Step.GRACE),
        ((), (), TRIES, Step.WAIT),
        ((), (), DONE | FLIES, Step.WAIT),  # a payment with a new method is under way
        ((1, 2), (), {"written_off": True}, Step.GRACE),
        ((1, 2), (), {"sent": True}, Step.WAIT),  # not due yet, or without a due date
        ((1, 2), (), DONE | {"sent": True}, Step.GRACE),
    ],
)
def test_what_follows_for_a_failing_invoice(
    schedule: tuple[int, ...], retries: tuple[str, ...], known: dict[str, Any], step: Step
) -> None:
    assert next_step(schedule, CollectionFacts(retries=retries, **known)) is step


@pytest.mark.parametrize(
    ("debits", "seconds", "may"),
    [
        (0, DEBIT_INTERVAL_SECONDS, True),
        (0, 3600, False),
        (1, DEBIT_INTERVAL_SECONDS, True),
        (2, 10 * DEBIT_INTERVAL_SECONDS, False),
    ],
)
def test_a_bank_account_is_debited_at_most_twice_and_days_apart(debits: int, seconds: int, may: bool) -> None:
    assert may_debit_again(debits, seconds) is may
