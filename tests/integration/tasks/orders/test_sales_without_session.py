"""Sales that no checkout session began, and payments that are captured later; on both databases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.handler import FollowUp
from tasks.models import AppMessage, Entitlement, Notification, Order
from tasks.orders.fulfilment import complete_order
from tasks.orders.sales_without_session import record_sale
from tests.support.business import HANDOFF_SECRET, Business, at_once
from tests.support.lives import T0, Happened, checkout, dispute, invoice, refund
from tests.support.peers import Answer, Peer, Stripe

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
ONCE = {"mode": "payment", "subscription": None, "invoice": None, "payment_intent": "pi_1"}
HANDLERS = {"tasks.sales.record": record_sale, "tasks.fulfilment.complete": complete_order}


def intent(number: int = 1, **fields: Any) -> Happened:
    """payment_intent.succeeded, with Elements: the metadata say what was sold."""
    about = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 1999,
        "amount_received": 1999,
        "currency": "eur",
        "customer": "cus_1",
        "receipt_email": "ada@example.com",
        "metadata": {"product": "course", "user_id": "42"},
        "created": T0,
        **fields,
    }
    return Happened(f"evt_{number}", "payment_intent.succeeded", T0 + 1, about)


def session(number: int = 2, **fields: Any) -> Happened:
    return checkout("completed", number, 1, **{**ONCE, "metadata": {"product": "course"}, **fields})


def one_off(number: int = 3, **fields: Any) -> Happened:
    """invoice.paid of an invoice of a product that is sold once, in the shape of new API versions."""
    line = {
        "object": "line_item",
        "amount": 1999,
        "quantity": 2,
        "description": "Handbook",
        "parent": {"type": "invoice_item_details", "invoice_item_details": {"proration": False}},
        "pricing": {"type": "price_details", "price_details": {"price": "price_book", "product": "book"}},
    }
    about = {"billing_reason": "manual", "total": 1999, "status": "paid", "parent": None, "subscription": None}
    return invoice("paid", number, 5, **about, lines={"data": [line], "has_more": False}, **fields)


def follow(business: Business, jobs: Sequence[FollowUp], event: Happened) -> None:
    """Run the jobs that record sales and complete orders."""
    for job in jobs:
        if job.task in HANDLERS:
            body = {"created": event.created, "data": {"object": event.object}}
            follow(business, business.follow(HANDLERS[job.task], job, body, event_id=event.id), event)


def in_force(business: Business) -> list[tuple[str, str]]:
    rows = business.all(select(Entitlement).where(Entitlement.revoked_at.is_(None)).order_by(Entitlement.source))
    return [(row.source, row.product) for row in rows]


def test_a_payment_with_elements_is_a_sale_a_minute_later(business: Business) -> None:
    business.settings = dict(APP)
    (later,) = intent().to(business)
    assert (later.task, later.delay_seconds, in_force(business)) == ("tasks.sales.record", 60, [])
    follow(business, [later], intent())
    assert in_force(business) == [("pi_1", "course")]
    fulfilled, granted = sorted(business.all(select(AppMessage)), key=lambda row: row.data["sequence"])
    assert (fulfilled.type, fulfilled.data["order"]["id"], granted.type) == (
        "order.fulfilled",
        "pi_1",
        "access.granted",
    )
    assert fulfilled.data["customer"]["metadata"]["user_id"] == "42"
    assert business.one(select(Notification.kind)) == "receipt"


@pytest.mark.parametrize(
    ("setting", "orders"),
    [
        ({"OWN_PRODUCTS": "prod_ours"}, 0),
        ({"OWN_METADATA": "site=shop"}, 0),
        ({"OWN_PRODUCTS": "course,book"}, 1),
        ({"OWN_METADATA": "user_id=42"}, 1),
    ],
)
@pytest.mark.parametrize("event", [intent(), one_off(metadata={"user_id": "42"})], ids=["payment", "invoice"])
def test_a_sale_of_another_site_is_no_order(
    business: Business, event: Happened, setting: dict[str, str], orders: int
) -> None:
    """bug-reports.md 6"""
    business.settings |= setting
    follow(business, event.to(business), event)
    assert (len(business.all(select(Order))), len(in_force(business))) == (orders, orders)


@pytest.mark.parametrize("fields", [{"metadata": {}}, {"metadata": {"user_id": "42"}}, {"invoice": "in_1"}])
def test_a_payment_that_names_no_product_or_pays_an_invoice_is_no_sale_of_its_own(
    business: Business, fields: dict[str, Any]
) -> None:
    assert intent(**fields).to(business) == []


def test_the_refund_of_a_sale_takes_it_back_whichever_comes_first(business: Business) -> None:
    for event in (intent(), refund(9, 50, made=1, invoice="", id="ch_1", payment_intent="pi_1")):
        follow(business, event.to(business), event)
    assert in_force(business) == []


def test_a_paid_invoice_of_one_off_items_is_a_sale_of_them(business: Business) -> None:
    event = one_off()
    follow(business, event.to(business), event)
    assert in_force(business) == [("in_1", "book")]
    order = business.one(select(Order))
    assert (order.session_id, order.state, order.amount_total) == ("in_1", "fulfilled", 1999)
    assert order.bought[0]["quantity"] == 2


def test_a_session_that_names_the_payment_makes_it_no_sale(business: Business) -> None:
    session().to(business)
    assert intent().to(business) == []
    assert in_force(business) == [("cs_1", "course")]


def test_a_session_whose_event_comes_within_the_minute_makes_it_no_sale(business: Business) -> None:
    jobs = intent().to(business)
    session().to(business)
    follow(business, jobs, intent())
    assert in_force(business) == [("cs_1", "course")]
    assert len(business.all(select(Order))) == 1


def test_a_session_that_comes_later_takes_the_place_of_the_sale(business: Business) -> None:
    business.settings = dict(APP)
    follow(business, intent().to(business), intent())
    session().to(business)
    assert in_force(business) == [("cs_1", "course")]
    messages = sorted(business.all(select(AppMessage)), key=lambda row: row.data["sequence"])
    assert [row.type for row in messages] == ["order.fulfilled", "access.granted", "order.fulfilled"]
    assert messages[-1].data["order"]["replaces"] == ["pi_1"]
    assert [one["source"] for one in messages[-1].data["access"]] == ["cs_1"]
    assert len(business.all(select(Notification).filter_by(kind="receipt"))) == 1


@pytest.mark.parametrize("known", ["a session", "an invoice", "neither"])
def test_with_a_key_stripe_is_asked_for_a_session_or_an_invoice(business: Business, known: str) -> None:
    def reply(asked: Request) -> Answer:
        path, _, query = asked.path.partition("?")
        assert "pi_1" in query
        sessions = [{"id": "cs_1", "created": T0}] if known == "a session" else []
        payments = [{"id": "inpay_1", "invoice": one_off().object}] if known == "an invoice" else []
        data = sessions if path == "/v1/checkout/sessions" else payments
        return Answer(body=json.dumps({"object": "list", "data": data, "has_more": False}).encode())

    jobs = intent().to(business)
    with Peer(reply) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        follow(business, jobs, intent())
    assert in_force(business) == ([("pi_1", "course")] if known == "neither" else [])


def test_two_events_of_one_sale_at_once_make_one_order(business: Business) -> None:
    (later,) = intent().to(business)
    at_once(lambda n: business.follow(record_sale, later, event_id=f"evt_{n}"), 3)
    assert in_force(business) == [("pi_1", "course")]
    assert len(business.all(select(Order))) == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_a_payment_captured_later_completes_the_order_of_its_session(
    business: Business, order: tuple[int, ...]
) -> None:
    """business.md 1.13c: manual capture; the session completed unpaid, and has no further event."""
    events = [session(payment_status="unpaid"), intent(metadata={})]
    for number in order:
        follow(business, events[number].to(business), events[number])
    assert business.one(select(Order.state)) == "fulfilled"
    assert in_force(business) == [("cs_1", "course")]
    assert business.one(select(Notification.kind)) == "receipt"


def test_a_session_of_an_account_names_it_as_customer(business: Business) -> None:
    """business.md 1.13h, stripe-versions.md 3, and the note on Accounts v2 in bug-reports.md"""
    business.settings = dict(APP)
    session(customer=None, customer_account="acct_9").to(business)
    assert business.one(select(Order.customer)) == "acct_9"
    assert {row.data["customer"]["id"] for row in business.all(select(AppMessage))} == {"acct_9"}


def test_what_the_customer_paid_is_told_beside_what_the_shop_gets(business: Business) -> None:
    """business.md 1.13g: Adaptive Pricing"""
    business.settings = dict(APP)
    paid = {"presentment_amount": 4650, "presentment_currency": "eur"}
    session(amount_total=5000, currency="usd", presentment_details=paid).to(business)
    order = next(row for row in business.all(select(AppMessage)) if row.type == "order.fulfilled").data["order"]
    assert (order["amount_total"], order["currency"]) == (5000, "usd")
    assert {name: order[name] for name in paid} == paid


@pytest.mark.parametrize("sold", [intent(amount=10_000, amount_received=4_000), session(amount_total=10_000)])
def test_what_a_capture_left_of_the_authorization_is_no_refund(business: Business, sold: Happened) -> None:
    """Stripe counts it as refunded. https://docs.stripe.com/api/charges/capture"""
    captured = intent(5, amount=10_000, amount_received=4_000)
    charge = {"id": "ch_1", "payment_intent": "pi_1", "amount": 10_000, "amount_captured": 4_000, "refunded": False}
    for event in (sold, captured, refund(9, 50, made=1, invoice="", **charge, amount_refunded=6_000)):
        follow(business, event.to(business), event)
    assert [name for _, name in in_force(business)] == ["course"]
    lost = dispute("closed", 13, 70, "lost")
    charge |= {"id": lost.object["charge"]}
    refund(11, 60, made=1, invoice="", **charge, amount_refunded=8_000).to(business)
    assert [name for _, name in in_force(business)] == ["course"]
    Happened(lost.id, lost.type, lost.created, lost.object | {"amount": 2_000}).to(business)
    assert in_force(business) == []


def test_an_invoice_that_a_credit_note_took_back_before_it_was_paid_is_no_sale(business: Business) -> None:
    """Stripe calls it paid. https://docs.stripe.com/invoicing/integration/programmatic-credit-notes"""
    event = one_off(pre_payment_credit_notes_amount=1999, amount_remaining=0)
    follow(business, event.to(business), event)
    assert (in_force(business), business.all(select(Notification))) == ([], [])


def test_the_invoice_of_a_payment_that_a_session_names_is_no_second_sale(business: Business) -> None:
    """Of a checkout with invoice_creation the invoice may be made after the session's event."""
    paid = {"id": "inpay_1", "invoice": "in_1", "payment": {"type": "payment_intent", "payment_intent": "pi_1"}}
    for event in (session(), Happened("evt_9", "invoice_payment.paid", T0 + 5, paid), one_off()):
        follow(business, event.to(business), event)
    assert in_force(business) == [("cs_1", "course")]
