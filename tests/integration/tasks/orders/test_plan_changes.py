"""A plan change updates entitlements and notifies the application; on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from tasks.models import AppMessage, Entitlement
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import Happened, checkout, invoice, item, subscription
from tests.support.peers import Answer, Peer, Stripe

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
BEGUN = subscription("created", 1, 0, "active", "basic")
MOVED = subscription("updated", 2, 10, "active", "pro")


def bought(*items: dict[str, Any]) -> Happened:
    """A checkout of these line items, or else of a basic plan."""
    lines = list(items) or [item("item", "basic")]
    return checkout("completed", 100, 1, metadata={}, line_items={"object": "list", "data": lines, "has_more": False})


def in_force(business: Business) -> list[str]:
    return sorted(business.all(select(Entitlement.product).where(Entitlement.revoked_at.is_(None))))


def access_webhooks(business: Business) -> list[tuple[Any, ...]]:
    """The access webhooks: number, kind, entitlements, what is in force afterwards, and the reason."""
    said = [(row.type, row.data) for row in business.all(select(AppMessage)) if row.type.startswith("access.")]
    held = [[one["entitlement"] for one in data["access"]] for _, data in said]
    return sorted(
        (data["sequence"], kind, data["entitlements"], names, data.get("reason"))
        for (kind, data), names in zip(said, held, strict=True)
    )


def test_a_plan_change_is_announced_without_a_gap(business: Business) -> None:
    business.settings = APP
    for event in (BEGUN, bought(), MOVED, MOVED):
        event.to(business)
    assert in_force(business) == ["pro"]
    assert access_webhooks(business) == [
        (1, "access.granted", ["basic"], ["basic"], None),
        (3, "access.granted", ["pro"], ["pro"], None),
        (4, "access.revoked", ["basic"], ["pro"], "plan_changed"),
    ]


def test_only_the_difference_is_announced(business: Business) -> None:
    business.settings = APP | {"FULFILMENT": 'basic = ["forum"]\npro = ["forum", "coaching"]'}
    for event in (BEGUN, bought(), MOVED):
        event.to(business)
    assert access_webhooks(business)[1:] == [(3, "access.granted", ["coaching"], ["coaching", "forum"], None)]


def test_one_time_items_beside_the_plan_stay(business: Business) -> None:
    book = item("item", "book")
    for event in (BEGUN, bought(item("item", "basic"), book | {"price": book["price"] | {"type": "one_time"}}), MOVED):
        event.to(business)
    assert in_force(business) == ["book", "pro"]


def test_the_plan_of_an_old_api_version_is_read(business: Business) -> None:
    old = {"data": [{"id": "si_1", "object": "subscription_item", "plan": {"id": "plan_1", "product": "pro"}}]}
    BEGUN.to(business)
    bought().to(business)
    Happened("evt_2", MOVED.type, MOVED.created, MOVED.object | {"items": old}).to(business)
    assert in_force(business) == ["pro"]


@pytest.mark.parametrize("items", [None, {"data": [item("subscription_item", "pro")], "has_more": True}])
def test_an_incomplete_list_of_items_revokes_nothing(business: Business, items: Any) -> None:
    bought().to(business)
    Happened("evt_2", MOVED.type, MOVED.created, MOVED.object | {"items": items}).to(business)
    assert in_force(business) == ["basic"]


def test_a_plan_change_whose_event_never_came_is_found_when_its_invoice_is_paid(business: Business) -> None:
    """With an API key, the subscription is fetched for every event of its invoices."""
    BEGUN.to(business)
    bought().to(business)
    paid = invoice("paid", 4, 20, next_payment_attempt=None)
    found = {"subscriptions": MOVED.object, "invoices": paid.object | {"status": "paid"}}
    with Peer(lambda asked: Answer(body=json.dumps(found[asked.path.split("/")[2]]).encode())) as peer:
        business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        paid.to(business)
    assert in_force(business) == ["pro"]


def test_without_access_a_plan_change_grants_nothing_and_a_payment_grants_the_new_plan(business: Business) -> None:
    business.settings = APP
    for event in (BEGUN, bought(), subscription("paused", 3, 5, "paused", "basic")):
        event.to(business)
    subscription("updated", 4, 10, "paused", "pro").to(business)
    assert in_force(business) == []
    subscription("resumed", 6, 20, "active", "pro").to(business)
    assert in_force(business) == ["pro"]
    assert [one[:3] for one in access_webhooks(business)] == [
        (1, "access.granted", ["basic"]),
        (3, "access.revoked", ["basic"]),
        (4, "access.granted", ["pro"]),
    ]
