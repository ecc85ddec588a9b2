"""The messages about a customer: only what is really gained or lost, and numbered per customer; on both databases."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tasks.billing.subscriptions import subscription_changed
from tasks.models import AppMessage, Entitlement, Invoice
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import T0, Happened, checkout, invoice, item, subscription

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
CYCLE = {"billing_reason": "subscription_cycle", "total": 1999, "status": "paid"}


def of_second(event: Happened) -> Happened:
    """The same of sub_2."""
    return Happened(f"{event.id}_2", event.type, event.created, event.object | {"id": "sub_2"})


def with_fields(event: Happened, **fields: Any) -> Happened:
    return Happened(event.id, event.type, event.created, event.object | fields)


def messages(business: Business, kind: str = "") -> list[AppMessage]:
    rows = sorted(business.all(select(AppMessage)), key=lambda row: row.data["sequence"])
    return [row for row in rows if row.type.startswith(kind)]


def test_what_another_subscription_still_gives_is_not_revoked(business: Business) -> None:
    """business.md 1.4: an upgrade by a new checkout, after which the old subscription is cancelled."""
    business.settings = dict(APP)
    begun = subscription("created", 1, 0, "active", "club")
    for event in (begun, of_second(begun), subscription("deleted", 3, 50, "canceled", "club")):
        event.to(business)
    assert [row.type for row in messages(business)] == ["access.granted"]
    of_second(subscription("deleted", 5, 60, "canceled", "club")).to(business)
    last = messages(business)[-1]
    assert (last.type, last.data["entitlements"], last.data["access"]) == ("access.revoked", ["club"], [])
    assert [row.data["sequence"] for row in messages(business)] == [1, 2]


def test_every_message_says_account_mode_and_version(business: Business) -> None:
    """business.md 1.12"""
    business.settings = dict(APP)
    event = subscription("created", 1, 0, "active", "club")
    body = {"created": event.created, "data": {"object": event.object}, "account": "acct_1", "livemode": False}
    business.run(subscription_changed, body)
    (row,) = messages(business)
    assert {name: row.data[name] for name in ("version", "account", "livemode", "sequence")} == {
        "version": 1,
        "account": "acct_1",
        "livemode": False,
        "sequence": 1,
    }
    assert (row.customer, row.data["customer"]["id"]) == ("acct_1/cus_1", "cus_1")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_each_paid_renewal_is_told_once_in_any_order(business: Business, order: tuple[int, ...]) -> None:
    business.settings = dict(APP)
    subscription("created", 1, 0, "active", "club").to(business)
    period = {"lines": {"data": [], "has_more": False}}
    events = [
        invoice("paid", 3, 10, billing_reason="subscription_create", total=1999, status="paid", **period),
        invoice("paid", 5, 100, id="in_2", created=T0 + 99, **CYCLE),
        invoice("payment_succeeded", 7, 100, id="in_2", created=T0 + 99, **CYCLE),
    ]
    for number in order:
        events[number].to(business)
    invoice("paid", 9, 200, id="in_3", created=T0 + 199, **CYCLE).to(business)
    renewed = [row.data["subscription"] for row in messages(business, "subscription.renewed")]
    assert [(one["id"], one["invoice"], one["amount"]) for one in renewed] == [
        ("sub_1", "in_2", 1999),
        ("sub_1", "in_3", 1999),
    ]


def test_a_renewal_moves_the_end_of_the_period_whichever_event_comes_first(business: Business) -> None:
    business.settings = dict(APP)
    line = {
        "object": "line_item",
        "amount": 1999,
        "parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": False}},
        "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "club"}},
        "period": {"start": T0 + 100, "end": T0 + 200},
    }
    with_fields(subscription("created", 1, 0, "active", "club"), current_period_end=T0 + 100).to(business)
    paid = invoice("paid", 4, 100, id="in_2", created=T0 + 99, **CYCLE, lines={"data": [line], "has_more": False})
    paid.to(business)
    assert business.one(select(Entitlement.until)) == T0 + 200
    renewed = messages(business, "subscription.renewed")[0].data
    assert renewed["subscription"]["period_end"] == renewed["access"][0]["until"] == "2026-02-25T06:16:40+00:00"
    with_fields(subscription("updated", 5, 101, "active", "club"), current_period_end=T0 + 200).to(business)
    assert business.one(select(Entitlement.until)) == T0 + 200
    assert business.one(select(Invoice.period_end)) == T0 + 200


def test_a_planned_cancellation_and_a_new_quantity_are_told(business: Business) -> None:
    business.settings = dict(APP)
    subscription("created", 1, 0, "active", "seat").to(business)
    more = {"items": {"data": [{**item("subscription_item", "seat"), "quantity": 7}]}, "current_period_end": T0 + 900}
    with_fields(subscription("updated", 3, 10, "active", "seat"), **more).to(business)
    with_fields(subscription("updated", 5, 20, "active"), **more, cancel_at_period_end=True).to(business)
    with_fields(subscription("updated", 7, 30, "active"), **more).to(business)
    told = [row.data["subscription"] for row in messages(business, "subscription.updated")]
    end = "2026-02-25T06:28:20+00:00"
    assert [row.data["entitlements"] for row in messages(business, "subscription.updated")] == [["seat"]] * 3
    assert told == [
        {"id": "sub_1", "quantity": 7},
        {"id": "sub_1", "cancel_at": end},
        {"id": "sub_1", "cancel_at": None},
    ]


def two_items(seats: int, desks: int) -> dict[str, Any]:
    """A subscription of both."""
    counted = {"seat": seats, "desk": desks}
    data = [{**item("subscription_item", name), "quantity": number} for name, number in counted.items()]
    return {"items": {"data": data, "has_more": False}}


def test_two_quantities_that_change_at_once_are_both_told(business: Business) -> None:
    business.settings = dict(APP)
    subscription("created", 1, 0, "active", **two_items(1, 1)).to(business)
    subscription("updated", 3, 10, "active", **two_items(7, 9)).to(business)
    told = [(row.data["entitlements"], row.data["subscription"]) for row in messages(business, "subscription.updated")]
    assert told == [(["desk"], {"id": "sub_1", "quantity": 9}), (["seat"], {"id": "sub_1", "quantity": 7})]
    subscription("updated", 5, 20, "active", **two_items(7, 9), cancel_at=T0 + 900).to(business)
    assert messages(business)[-1].data["entitlements"] == ["desk", "seat"]


def priced(name: str, end: int | None = None) -> dict[str, Any]:
    """An item with a period of its own, since API version 2025-03-31 (basil)."""
    price = {"id": f"price_{name}", "object": "price", "product": name, "type": "recurring"}
    return {"id": f"si_{name}", "object": "subscription_item", "price": price, "quantity": 1, "current_period_end": end}


@pytest.mark.parametrize("paid_first", [True, False])
def test_each_item_ends_with_its_own_period(business: Business, paid_first: bool) -> None:
    """A year of support beside a monthly plan: flexible billing allows items of different intervals."""
    month, year = T0 + 100, T0 + 1200
    items: dict[str, Any] = {"items": {"data": [priced("plan", month), priced("support", year)], "has_more": False}}
    renewed: dict[str, Any] = {
        "items": {"data": [priced("plan", month + 100), priced("support", year)], "has_more": False}
    }
    subscription("created", 1, 0, "active", **items).to(business)
    ends = select(Entitlement.until).order_by(Entitlement.product)
    assert business.all(ends) == [month, year]
    line = {
        "object": "line_item",
        "amount": 1999,
        "parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": False}},
        "pricing": {"type": "price_details", "price_details": {"price": "price_plan", "product": "plan"}},
        "period": {"start": month, "end": month + 100},
    }
    paid = invoice("paid", 4, 100, id="in_2", created=month, **CYCLE, lines={"data": [line], "has_more": False})
    updated = subscription("updated", 5, 101, "active", **renewed)
    for event in (paid, updated) if paid_first else (updated, paid):
        event.to(business)
        assert business.all(ends) == [month + 100, year]


def test_of_one_second_the_creation_is_the_older_event(business: Business) -> None:
    """Without a key nothing else tells them apart but their ids, which are random."""
    created = subscription("created", 9, 0, "active", "basic")
    updated = subscription("updated", 1, 0, "active", "pro")
    for event in (created, updated, created):
        event.to(business)
    assert business.all(select(Entitlement.product).where(Entitlement.revoked_at.is_(None))) == ["pro"]


def test_a_payment_that_is_missing_is_told_with_the_end_of_the_grace_period(business: Business) -> None:
    business.settings = APP | {"PAYMENT_GRACE_SECONDS": "100"}
    subscription("created", 1, 0, "active", "club").to(business)
    failed = {"billing_reason": "subscription_cycle", "next_payment_attempt": None, "created": T0 + 9}
    invoice("payment_failed", 3, 10, id="in_2", **failed).to(business)
    subscription("updated", 5, 11, "past_due", "club").to(business)
    told = messages(business, "subscription.updated")[-1].data
    assert told["access"][0]["past_due"] is True
    assert told["access"][0]["grace_until"] == "2026-03-01T12:01:40+00:00"
    assert business.one(select(Entitlement.revoked_at)) is None


@pytest.mark.parametrize("begun_by", ["api", "checkout"])
def test_why_stripe_ended_a_subscription_is_told(business: Business, begun_by: str) -> None:
    """business.md 1.13j: the application hears Stripe's reason."""
    business.settings = dict(APP)
    subscription("created", 1, 0, "active", "club").to(business)
    if begun_by == "checkout":
        checkout("completed", 2, 1).to(business)
    ended = subscription("deleted", 3, 10, "canceled", "club")
    with_fields(ended, cancellation_details={"reason": "payment_failed"}).to(business)
    (row,) = messages(business, "access.revoked")
    assert (row.data["reason"], row.data["cancellation_reason"]) == ("subscription_canceled", "payment_failed")


def test_a_guest_who_becomes_a_customer_keeps_one_row_of_access(business: Business) -> None:
    business.settings = dict(APP)
    once = {"mode": "payment", "subscription": None, "invoice": None, "payment_intent": "pi_1"}
    checkout("completed", 1, 1, **once, customer=None).to(business)
    checkout("completed", 2, 2, **once).to(business)
    assert business.one(select(Entitlement.holder)) == "cus_1"
    assert {row.customer for row in messages(business, "access.granted")} == {"cs_1", "cus_1"}
    (moved,) = messages(business, "access.revoked")
    assert (moved.customer, moved.data["access"], moved.data["reason"]) == ("cs_1", [], "moved")


def test_what_becomes_of_metered_items_is_told_too(business: Business) -> None:
    business.settings = dict(APP)
    metered = {
        "items": {"data": [{key: item("", "api")[key] for key in ("id", "price")}]},
        "current_period_end": T0 + 900,
    }
    with_fields(subscription("created", 1, 0, "active"), **metered).to(business)
    with_fields(subscription("updated", 3, 10, "active"), **metered, cancel_at_period_end=True).to(business)
    with_fields(subscription("updated", 5, 20, "past_due"), **metered).to(business)
    told = [row.data["subscription"] for row in messages(business, "subscription.updated")]
    assert [set(one) - {"id"} for one in told] == [{"cancel_at"}, {"cancel_at", "past_due"}]


def test_an_end_of_a_period_that_is_moved_before_it_comes_is_told(business: Business) -> None:
    """From months to a year, and from a longer trial; a renewal is told once it is paid."""
    business.settings = dict(APP)
    now = int(business.now.timestamp())
    for number, end in ((1, 100), (3, 9_000), (5, 9_000)):
        changed = subscription("created" if number == 1 else "updated", number, number, "active", "club")
        with_fields(changed, current_period_end=now + end).to(business)
    business.now += timedelta(seconds=9_000)
    with_fields(subscription("updated", 7, 7, "active", "club"), current_period_end=now + 18_000).to(business)
    (told,) = messages(business, "subscription.updated")
    assert told.data["subscription"] == {"id": "sub_1", "until": told.data["access"][0]["until"]}


def test_a_change_to_a_shorter_interval_shortens_the_paid_period(business: Business) -> None:
    line = {
        "object": "line_item",
        "amount": 9900,
        "parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": False}},
        "period": {"start": T0, "end": T0 + 9_000},
    }
    paid = {"billing_reason": "subscription_create", "total": 9900, "lines": {"data": [line], "has_more": False}}
    with_fields(subscription("created", 1, 0, "active", "club"), current_period_end=T0 + 9_000).to(business)
    invoice("paid", 2, 1, **paid).to(business)
    with_fields(subscription("updated", 3, 50, "active", "club"), current_period_end=T0 + 800).to(business)
    assert business.one(select(Entitlement.until)) == T0 + 800
