"""Checkouts, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from inbox.errors import PermanentError
from tasks.fulfilment import checkout_completed
from tasks.models import Entitlement, Notification, Order
from tests.business import NOW, Business, at_once


def checkout(**fields: Any) -> dict[str, Any]:
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "mode": "payment",
        "payment_status": "paid",
        "customer": "cus_1",
        "client_reference_id": "user_7",
        "subscription": None,
        "amount_total": 4900,
        "currency": "usd",
        "customer_details": {"email": "ada@example.com", "phone": None, "name": "Ada", "tax_ids": None},
        "customer_email": None,
        "metadata": {"product": "course"},
        **fields,
    }
    return {"id": "evt", "type": "checkout.session.completed", "created": 1_700_000_000, "data": {"object": session}}


def test_a_paid_checkout_is_an_order_with_access_and_a_receipt(business: Business) -> None:
    (receipt,) = business.run(checkout_completed, checkout())
    order = business.one(select(Order))
    assert (order.session_id, order.state, order.fulfilled_at) == ("cs_1", "fulfilled", NOW)
    assert (order.amount_total, order.currency) == (4900, "usd")
    access = business.one(select(Entitlement))
    assert (access.product, access.customer, access.client_reference) == ("course", "cus_1", "user_7")
    assert (access.granted_at, access.revoked_at) == (NOW, None)
    owed = business.one(select(Notification))
    assert (owed.kind, owed.email, owed.params["amount"]) == ("receipt", "ada@example.com", "49.00 USD")
    assert (receipt.task, receipt.args) == ("tasks.notifications.send", {"notification": owed.id})


def test_a_free_checkout_is_fulfilled_too(business: Business) -> None:
    free = checkout(payment_status="no_payment_required", amount_total=None, currency=None)
    business.run(checkout_completed, free)
    assert business.one(select(Order.state)) == "fulfilled"
    assert len(business.all(select(Entitlement))) == 1


@pytest.mark.parametrize("status", ["unpaid", "a word of next year"])
def test_an_unpaid_checkout_gives_no_access_yet(business: Business, status: str) -> None:
    assert business.run(checkout_completed, checkout(payment_status=status)) == []
    assert business.one(select(Order.state)) == "awaiting_payment"
    assert business.all(select(Entitlement)) == business.all(select(Notification)) == []


def test_an_order_that_waited_is_fulfilled_once_it_is_paid(business: Business) -> None:
    business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_1")
    assert len(business.run(checkout_completed, checkout(), event_id="evt_2")) == 1
    assert business.one(select(Order.state)) == "fulfilled"


def test_an_unpaid_event_that_came_late_takes_nothing_back(business: Business) -> None:
    business.run(checkout_completed, checkout(), event_id="evt_2")
    assert business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_1") == []
    assert business.one(select(Order.state)) == "fulfilled"


def test_events_of_one_session_at_once_make_one_order_and_one_receipt(business: Business) -> None:
    answers = at_once(lambda n: business.run(checkout_completed, checkout(), event_id=f"evt_{n}"), 3)
    assert sorted(len(answer) for answer in answers) == [0, 0, 1]
    for table in (Order, Entitlement, Notification):
        assert len(business.all(select(table))) == 1


def test_events_at_once_fulfil_a_waiting_order_once(business: Business) -> None:
    business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_unpaid")
    answers = at_once(lambda n: business.run(checkout_completed, checkout(), event_id=f"evt_{n}"), 4)
    assert sorted(len(answer) for answer in answers) == [0, 0, 0, 1]


def test_one_event_at_once_twice_has_one_effect(business: Business) -> None:
    answers = at_once(lambda _: business.run(checkout_completed, checkout()), 2)
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(business.all(select(Order))) == 1


def test_each_product_of_the_line_items_is_granted(business: Business) -> None:
    items = {"data": [{"price": {"product": "prod_1"}}, {"price": {"product": "prod_2"}}]}
    business.run(checkout_completed, checkout(metadata={}, line_items=items))
    assert sorted(business.all(select(Entitlement.product))) == ["prod_1", "prod_2"]


def test_a_guest_without_an_address_gets_access_and_the_administrator_word(business: Business) -> None:
    guest = checkout(customer=None, client_reference_id=None, customer_details=None)
    business.run(checkout_completed, guest)
    assert business.one(select(Entitlement.session_id)) == "cs_1"
    assert business.one(select(Notification.kind)) == "no_address"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"payment_status": None}, "data.object.payment_status"),
        ({"id": None}, "data.object.id"),
        ({"amount_total": "4900"}, "amount_total"),
    ],
)
def test_a_payload_without_what_it_takes_changes_nothing(
    business: Business, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        business.run(checkout_completed, checkout(**fields))
    assert business.all(select(Order)) == []
