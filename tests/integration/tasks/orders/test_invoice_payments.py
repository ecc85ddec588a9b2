"""A dispute that names only its payment finds the invoice that it takes back; on both databases, in any order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.integration.tasks.orders.test_what_a_payment_bought import begin, happen
from tests.support.business import Business
from tests.support.lives import T0, Happened

LOST: dict[str, Any] = {"id": "dp_1", "object": "dispute", "charge": "ch_1", "payment_intent": "pi_1", "status": "lost"}
DISPUTE = Happened("evt_9", "charge.dispute.closed", T0 + 90, LOST | {"amount": 1999, "created": T0 + 80})
LINKS = {
    "the invoice itself": begin(payment_intent="pi_1")[2:],
    "the payment intent": [
        *begin()[2:],
        Happened("evt_4", "payment_intent.succeeded", T0 + 2, {"id": "pi_1", "invoice": "in_1", "amount": 1999}),
    ],
    "the invoice payment": [
        *begin()[2:],
        Happened(
            "evt_4",
            "invoice_payment.paid",
            T0 + 2,
            {"id": "inpay_1", "invoice": "in_1", "payment": {"type": "payment_intent", "payment_intent": "pi_1"}},
        ),
    ],
}
ORDERS = [
    pytest.param(order, id=f"{name} {number}")
    for name, events in LINKS.items()
    for number, order in enumerate(itertools.permutations([*events, DISPUTE]))
]


@pytest.mark.parametrize("order", ORDERS)
def test_a_lost_dispute_that_names_only_its_payment_takes_back_the_plan(
    business: Business, order: tuple[Happened, ...]
) -> None:
    assert happen(business, begin()[:2]) == ["basic"]
    assert happen(business, order) == []


def test_without_any_event_that_names_both_the_plan_stays(business: Business) -> None:
    assert happen(business, [*begin(), DISPUTE]) == ["basic"]


def test_an_invoice_that_was_paid_outside_stripe_has_no_payment(business: Business) -> None:
    record = {"id": "inpay_1", "invoice": "in_1", "payment": {"type": "payment_record", "payment_record": "pr_1"}}
    assert happen(business, [*begin(), Happened("evt_4", "invoice_payment.paid", T0 + 2, record)]) == ["basic"]
