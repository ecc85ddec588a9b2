"""A refund or a lost dispute takes back what its payment bought, and nothing else; on both databases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.models import Entitlement, Invoice, Order
from tasks.orders.fulfilment import complete_order
from tests.support.business import Business
from tests.support.lives import T0, Happened, checkout, dispute, invoice, item, refund, subscription
from tests.support.peers import Answer, Peer, Stripe

REVOKE = {"ACCESS_AFTER_REFUND": "revoke"}
BOOK = {"id": "item_2", "object": "item", "price": {"id": "price_book", "product": "book", "type": "one_time"}}
LINES = {"object": "list", "data": [item("item", "basic")], "has_more": False}


def begin(*, lines: dict[str, Any] = LINES, **paid: Any) -> list[Happened]:
    """A monthly plan, sold by a checkout and paid."""
    first = {"billing_reason": "subscription_create", "total": 1999, "status": "paid", **paid}
    return [
        subscription("created", 1, 0, "active", "basic"),
        checkout("completed", 2, 1, metadata={}, line_items=lines),
        invoice("paid", 3, 2, **first),
    ]


def line(product: str, amount: int, *, proration: bool = False, end: int = T0 + 2_600_000) -> dict[str, Any]:
    """A line of an item of the subscription, in the shape of new API versions."""
    details = {"proration": proration, "subscription_item": f"si_{product}"}
    return {
        "object": "line_item",
        "amount": amount,
        "parent": {"type": "subscription_item_details", "subscription_item_details": details},
        "pricing": {"type": "price_details", "price_details": {"price": f"price_{product}", "product": product}},
        "period": {"start": T0, "end": end},
    }


def lines(*found: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"lines": {"object": "list", "data": list(found), "has_more": has_more}}


def in_force(business: Business) -> list[str]:
    return sorted(business.all(select(Entitlement.product).where(Entitlement.revoked_at.is_(None))))


def happen(business: Business, events: Sequence[Happened]) -> list[str]:
    for event in events:
        event.to(business)
    return in_force(business)


@pytest.mark.parametrize("reason", ["subscription_update", "manual"])
def test_the_refund_of_a_proration_or_an_extra_takes_no_period_back(business: Business, reason: str) -> None:
    """bug-reports.md 2 a and b"""
    business.settings = REVOKE
    extra = invoice(
        "paid", 5, 1001, id="in_2", created=T0 + 1000, amount_due=900, total=900, billing_reason=reason, status="paid"
    )
    back = refund(6, 2001, made=1001, invoice="in_2", amount=900, amount_refunded=900)
    for order in itertools.permutations([*begin(), extra, back][2:]):
        assert happen(business, [*begin()[:2], *order]) == ["basic"]


CREDIT, PRO = line("basic", -1500, proration=True), line("pro", 4500, proration=True)
MORE = (line("pro", -3000, proration=True), line("pro", 6000, proration=True))  # a second seat


def change(number: int, happened: int, *billed: dict[str, Any]) -> Happened:
    """The invoice of a change of plan, paid at once."""
    total = sum(one["amount"] for one in billed)
    paid = {"billing_reason": "subscription_update", "status": "paid", "amount_due": total, "total": total}
    return invoice("paid", number, happened, id=f"in_{number}", created=T0 + happened, **paid, **lines(*billed))


@pytest.mark.parametrize(("billed", "kept"), [((CREDIT, PRO), []), (MORE, ["pro"])])
def test_a_lost_dispute_of_a_change_takes_back_the_price_that_it_added_and_not_what_only_grew(
    business: Business, billed: tuple[dict[str, Any], ...], kept: list[str]
) -> None:
    upgraded, changed = subscription("updated", 4, 1000, "active", "pro"), change(5, 1001, *billed)
    lost = dispute("closed", 9, 2000, "lost", charge="ch_5", payment_intent="pi_5", amount=3000)
    paid = refund(6, 1990, made=1001, id="ch_5", invoice="in_5", amount=3000, amount_refunded=1, refunded=False)
    for order in itertools.permutations([upgraded, changed, lost, paid]):
        assert happen(business, [*begin(), *order]) == kept
    renewal = {"billing_reason": "subscription_cycle", "status": "paid", "amount_due": 5999, "total": 5999}
    next_month = invoice("paid", 11, 3000, id="in_11", created=T0 + 3000, **renewal, **lines(line("pro", 5999)))
    assert happen(business, [next_month]) == ["pro"]


def test_the_refund_of_one_part_of_an_invoice_is_not_the_refund_of_the_invoice(business: Business) -> None:
    """bug-reports.md 2 c: 100.00 are paid as 99.00 and 1.00."""
    business.settings = REVOKE
    small = refund(7, 2001, made=1001, invoice="in_1", id="ch_7", amount=100, amount_refunded=100)
    assert happen(business, [*begin(amount_due=10_000, total=10_000), small]) == ["basic"]
    rest = refund(8, 2002, made=1001, invoice="in_1", id="ch_8", amount=9900, amount_refunded=9900)
    assert happen(business, [rest]) == [], "all refunds of all charges together are all that was paid"


def test_the_refund_of_one_part_found_through_stripe_is_not_the_refund_of_the_invoice(business: Business) -> None:
    """bug-reports.md 2 d: with a key, and a charge that names no invoice."""
    happen(business, begin(amount_due=10_000, total=10_000))
    (_, _, first) = begin(amount_due=10_000, total=10_000)

    def reply(asked: Request) -> Answer:
        found: Any = {"error": {"type": "invalid_request_error", "code": "resource_missing"}}
        if asked.path.startswith("/v1/invoice_payments"):
            found = {"object": "list", "data": [{"id": "inpay_1", "invoice": first.object}], "has_more": False}
        return Answer(200 if "error" not in found else 404, body=json.dumps(found).encode())

    with Peer(reply) as peer:
        business.settings = REVOKE | {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        back = refund(7, 2001, made=1001, invoice="", amount=100, amount_refunded=100, payment_intent="pi_2")
        Happened(back.id, back.type, back.created, back.object | {"invoice": None}).to(business)
    assert in_force(business) == ["basic"]


def test_by_default_a_refund_revokes_what_was_bought_outright_and_keeps_a_running_plan(business: Business) -> None:
    """business.md 1.10a"""
    both = {**LINES, "data": [item("item", "basic"), BOOK]}
    assert happen(business, begin(lines=both)) == ["basic", "book"]
    assert happen(business, [refund(5, 2000, made=2, invoice="in_1")]) == ["basic"]


def test_a_cycle_of_nothing_by_a_coupon_is_a_paid_period(business: Business) -> None:
    """business.md 1.10a: a month is refunded, the next one is free."""
    business.settings = REVOKE
    assert happen(business, [*begin(), refund(5, 2000, made=2, invoice="in_1")]) == []
    free = {"billing_reason": "subscription_cycle", "total": 0, "amount_due": 0, "status": "paid"}
    assert happen(business, [invoice("paid", 7, 3000, id="in_2", created=T0 + 2999, **free)]) == ["basic"]


def test_a_plan_that_ends_leaves_what_was_bought_outright_beside_it(business: Business) -> None:
    """bug-reports.md 7"""
    events = begin(lines={**LINES, "data": [item("item", "basic"), BOOK]})
    assert happen(business, [*events, subscription("deleted", 5, 1000, "canceled", "basic")]) == ["book"]


@pytest.mark.parametrize("last", ["refund", "dispute"])
def test_a_lost_dispute_finds_its_invoice_through_its_charge_in_any_order_of_arrival(
    business: Business, last: str
) -> None:
    """bug-reports.md 10: without a key, the charge names its invoice, and the dispute only its charge."""
    renewal = {"billing_reason": "subscription_cycle", "total": 1999, "status": "paid"}
    events = [*begin(), invoice("paid", 5, 20, id="in_2", created=T0 + 20, **renewal)]
    partial = refund(3, 1500, made=21, invoice="in_2", amount_refunded=100, refunded=False, payment_intent="pi_9")
    lost = dispute("closed", 9, 2000, "lost")
    happen(business, [*events, *((lost, partial) if last == "refund" else (partial, lost))])
    assert in_force(business) == []


def test_a_lost_dispute_of_a_part_revokes_nothing_as_a_partial_refund(business: Business) -> None:
    """business.md 1.13b: 5.00 of 1000.00"""
    fields = {"mode": "payment", "subscription": None, "invoice": None, "payment_intent": "pi_1"}
    bought = checkout("completed", 2, 1, **fields, amount_total=100_000, metadata={"product": "course"})
    lost = dispute("closed", 9, 2000, "lost")
    part = lost.object | {"payment_intent": "pi_1", "amount": 500, "currency": "eur"}
    assert happen(business, [bought, Happened("evt_9", lost.type, lost.created, part)]) == ["course"]
    whole = lost.object | {"id": "dp_2", "payment_intent": "pi_1", "amount": 100_000, "currency": "eur"}
    assert happen(business, [Happened("evt_10", lost.type, lost.created, whole)]) == []


def test_a_dispute_first_seen_in_its_appeal_was_lost(business: Business) -> None:
    """stripe-versions.md note 7"""
    fields = {"mode": "payment", "subscription": None, "invoice": None, "payment_intent": "pi_1"}
    bought = checkout("completed", 2, 1, **fields, metadata={"product": "course"})
    appeal = dispute("updated", 9, 2000, "appeal_under_review")
    about = appeal.object | {"payment_intent": "pi_1", "amount": 1999, "currency": "eur"}
    assert happen(business, [bought, Happened("evt_9", "charge.dispute.created", appeal.created, about)]) == []
    won = Happened("evt_10", "charge.dispute.closed", appeal.created + 9, about | {"status": "won"})
    assert happen(business, [won]) == ["course"]


def two_intervals(business: Business) -> list[str]:
    """stripe-versions.md 4: `pro` yearly and `seat` monthly; a month later `seat` is paid, then all of the first."""
    plan = subscription("created", 1, 0, "active")
    items = [
        {"id": "si_1", "price": {"id": f"price_{name}", "product": name}, "quantity": 1} for name in ("pro", "seat")
    ]
    about = plan.object | {"items": {"object": "list", "data": items, "has_more": False}}
    first = lines(line("pro", 120_000, end=T0 + 31_536_000), line("seat", 1000))
    create = {
        "billing_reason": "subscription_create",
        "amount_due": 121_000,
        "total": 121_000,
        "status": "paid",
        **first,
    }
    cycle = {"billing_reason": "subscription_cycle", "amount_due": 1000, "total": 1000, "status": "paid"}
    events = [
        Happened("evt_1", plan.type, plan.created, about),
        invoice("paid", 4, 2, **create),
        invoice("paid", 6, 2_600_000, id="in_2", created=T0 + 2_600_000, **cycle, **lines(line("seat", 1000))),
        refund(7, 2_700_000, made=2, invoice="in_1", amount=121_000, amount_refunded=121_000),
    ]
    return happen(business, events)


def test_what_is_paid_for_one_item_does_not_outweigh_the_refund_of_another(business: Business) -> None:
    business.settings = REVOKE
    assert two_intervals(business) == ["seat"]


def test_by_default_both_items_of_a_running_subscription_stay_after_the_refund(business: Business) -> None:
    assert two_intervals(business) == ["pro", "seat"]


def test_a_part_of_an_invoices_lines_stands_for_all_items_and_with_a_key_the_rest_is_fetched(
    business: Business,
) -> None:
    business.settings = REVOKE
    part = lines(line("other", 1999), has_more=True)
    first = invoice("paid", 4, 2, billing_reason="subscription_create", total=1999, status="paid", **part)
    back = refund(7, 2001, made=2, invoice="in_1")
    assert happen(business, [subscription("created", 1, 0, "active", "basic"), first, back]) == []

    def reply(asked: Request) -> Answer:
        path = asked.path.partition("?")[0]
        found: Any = {**first.object, "lines": part["lines"]}
        if path == "/v1/invoices/in_1/lines":
            rest = [line("other", 1000), line("third", 999)]
            found = {"object": "list", "data": rest, "has_more": False, "url": path}
        elif path.startswith("/v1/subscriptions"):
            found = subscription("created", 1, 0, "active", "basic").object
        return Answer(body=json.dumps(found).encode())

    with Peer(reply) as peer:
        business.settings = REVOKE | {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        Happened("evt_8", first.type, first.created + 10, first.object).to(business)
    row = business.one(select(Invoice))
    assert (row.lines_complete, [one["product"] for one in row.lines]) == (True, ["other", "third"])
    assert in_force(business) == ["basic"], "the refunded invoice was for other items"


# --- items of which only a part is embedded -------------------------------------------------------------------------


def with_more(event: Happened) -> Happened:
    return Happened(
        event.id, event.type, event.created, event.object | {"items": event.object["items"] | {"has_more": True}}
    )


@pytest.mark.parametrize("with_checkout", [False, True])
def test_a_part_of_the_items_changes_nothing_that_is_known(business: Business, *, with_checkout: bool) -> None:
    """business.md 1.6: sold basic, moved to pro, then an update lists only the first ten items."""
    events = begin() if with_checkout else begin()[:1]
    moved = subscription("updated", 5, 10, "active", "pro")
    part = with_more(subscription("updated", 7, 20, "active", "other"))
    assert happen(business, [*events, moved, part]) == ["pro"]


def test_without_anything_else_a_part_of_the_items_is_granted(business: Business) -> None:
    assert happen(business, [with_more(subscription("created", 1, 0, "active", "basic"))]) == ["basic"]


def test_with_a_key_the_other_items_are_fetched(business: Business) -> None:
    part = with_more(subscription("updated", 7, 20, "active", "basic"))

    def reply(asked: Request) -> Answer:
        path = asked.path.partition("?")[0]
        found: Any = part.object
        if path == "/v1/subscription_items":
            data = [item("subscription_item", name) for name in ("basic", "eleventh")]
            found = {"object": "list", "data": data, "has_more": False, "url": path}
        return Answer(body=json.dumps(found).encode())

    with Peer(reply) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        assert happen(business, [part]) == ["basic", "eleventh"]


def test_an_item_of_quantity_zero_is_granted_with_that_quantity(business: Business) -> None:
    """business.md 1.13l: the application decides what no seats mean."""
    event = subscription("created", 1, 0, "active", "seat")
    none = event.object | {"items": {"data": [{**item("subscription_item", "seat"), "quantity": 0}]}}
    happen(business, [Happened(event.id, event.type, event.created, none)])
    row = business.one(select(Entitlement))
    assert (row.quantity, row.revoked_at) == (0, None)


# --- ways of paying an order ------------------------------------------------------------------------------------------


def test_a_checkout_whose_bank_debit_failed_is_fulfilled_when_its_first_invoice_is_paid_later(
    business: Business,
) -> None:
    """bug-reports.md 1"""
    unpaid = {"payment_status": "unpaid", "metadata": {}, "line_items": LINES}
    first = {"billing_reason": "subscription_create", "total": 1999}
    events = [
        subscription("created", 1, 0, "incomplete", "basic"),
        checkout("completed", 2, 1, **unpaid),
        subscription("updated", 3, 2, "active", "basic"),
        checkout("async_payment_failed", 4, 400_000, **unpaid),
        invoice("payment_failed", 5, 400_000, status="open", **first),
        subscription("updated", 7, 400_001, "past_due", "basic"),
    ]
    happen(business, events)
    assert business.one(select(Order.state)) == "payment_failed"
    jobs = invoice("paid", 9, 450_000, status="paid", **first).to(business)
    (complete,) = [job for job in jobs if job.task == "tasks.fulfilment.complete"]
    business.follow(complete_order, complete, event_id="evt_9")
    assert business.one(select(Order.state)) == "fulfilled"
    assert happen(business, [subscription("updated", 11, 450_001, "active", "basic")]) == ["basic"]
    assert business.follow(complete_order, complete, event_id="evt_10") == [], "once"
