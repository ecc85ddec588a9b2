"""A subscription gives access by its items and status, whoever created it; on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from dev.simulators.http import Request
from tasks.models import AppMessage, Customer, Entitlement, Order
from tasks.orders import fulfilment
from tests.support.business import HANDOFF_SECRET, Business, at_once
from tests.support.lives import Happened, checkout, item, subscription
from tests.support.peers import Answer, Peer, Stripe

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
BEGUN = subscription("created", 1, 0, "active", "basic")


@pytest.fixture(params=["without a key", "with a key"])
def told(request: pytest.FixtureRequest, business: Business) -> Iterator[Business]:
    """A Stripe that still has the subscription as it began, if there is a key."""
    business.settings = dict(APP)
    if request.param == "without a key":
        yield business
        return

    def reply(asked: Request) -> Answer:
        assert asked.path == "/v1/subscriptions/sub_1"
        return Answer(body=json.dumps(BEGUN.object).encode())

    with Peer(reply) as peer:
        business.settings |= {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        yield business


def in_force(business: Business) -> list[tuple[str, str]]:
    rows = business.all(select(Entitlement).where(Entitlement.revoked_at.is_(None)).order_by(Entitlement.source))
    return [(row.source, row.product) for row in rows]


def webhooks(business: Business) -> list[Any]:
    return sorted(business.all(select(AppMessage)), key=lambda row: row.data["sequence"])


def with_fields(event: Happened, **fields: Any) -> Happened:
    return Happened(event.id, event.type, event.created, event.object | fields)


def test_a_subscription_created_by_api_gives_access_at_once_and_notifies_the_application(told: Business) -> None:
    BEGUN.to(told)
    assert in_force(told) == [("sub_1", "basic")]
    assert told.all(select(Order)) == []
    (said,) = webhooks(told)
    assert (said.type, said.data["customer"]["id"], said.data["entitlements"]) == ("access.granted", "cus_1", ["basic"])
    assert said.data["access"][0]["source"] == "sub_1"


def test_its_metadata_tells_the_application_whose_it_is(business: Business) -> None:
    """business.md 1.3"""
    business.settings = dict(APP)
    with_fields(BEGUN, metadata={"user_id": "42"}).to(business)
    assert webhooks(business)[0].data["customer"]["metadata"] == {"user_id": "42"}


def test_a_product_named_in_its_metadata_takes_the_place_of_its_items(business: Business) -> None:
    with_fields(BEGUN, metadata={"product": "club"}).to(business)
    assert in_force(business) == [("sub_1", "club")]


def test_its_end_revokes_access(business: Business) -> None:
    BEGUN.to(business)
    subscription("deleted", 2, 10, "canceled").to(business)
    assert in_force(business) == []


@pytest.mark.parametrize("session_first", [False, True])
def test_the_checkout_that_begins_a_subscription_is_no_second_source(
    business: Business, *, session_first: bool
) -> None:
    lines = {"object": "list", "data": [item("item", "basic")], "has_more": False}
    events = [BEGUN, checkout("completed", 2, 5, metadata={}, line_items=lines)]
    for event in reversed(events) if session_first else events:
        event.to(business)
    assert in_force(business) == [("sub_1", "basic")]


def test_a_checkout_without_known_items_grants_nothing_until_the_subscription_names_them(business: Business) -> None:
    """business.md 1.13a: without a key events hold no line items, and `default` is nobody's product."""
    business.settings = dict(APP)
    checkout("completed", 2, 5, metadata={}).to(business)
    assert in_force(business) == []
    BEGUN.to(business)
    assert in_force(business) == [("sub_1", "basic")]
    assert [(row.type, row.data.get("entitlements")) for row in webhooks(business)] == [
        ("order.fulfilled", None),
        ("access.granted", ["basic"]),
    ]
    assert webhooks(business)[0].data["order"]["entitlements"] == []


def test_events_of_one_subscription_at_once_grant_once_and_say_it_once(business: Business) -> None:
    business.settings = dict(APP)
    at_once(lambda n: Happened(f"evt_{n}", BEGUN.type, BEGUN.created, BEGUN.object).to(business), 3)
    assert in_force(business) == [("sub_1", "basic")]
    assert [row.type for row in webhooks(business)] == ["access.granted"]


def test_two_subscriptions_of_one_customer_at_once_number_their_messages_one_after_the_other(
    business: Business,
) -> None:
    business.settings = dict(APP)

    def begin(number: int) -> None:
        about = {"id": f"sub_{number}", "items": {"data": [item("subscription_item", f"plan_{number}")]}}
        Happened(f"evt_{number}", BEGUN.type, BEGUN.created, BEGUN.object | about).to(business)

    at_once(begin, 3)
    assert [row.data["sequence"] for row in webhooks(business)] == [1, 2, 3]
    assert [len(row.data["access"]) for row in webhooks(business)] == [1, 2, 3]
    assert business.one(select(Customer.sequence)) == 3


@pytest.mark.parametrize("status", ["incomplete", "canceled", "paused", "unpaid"])
def test_a_subscription_whose_status_does_not_entitle_gives_no_access(business: Business, status: str) -> None:
    subscription("created", 1, 0, status, "basic").to(business)
    assert in_force(business) == []


def test_a_job_of_an_earlier_version_still_runs(business: Business) -> None:
    BEGUN.to(business)
    assert business.run(fulfilment.sync_subscription, args={"subscription": "sub_1"}, effect="old") == []
    assert in_force(business) == [("sub_1", "basic")]
