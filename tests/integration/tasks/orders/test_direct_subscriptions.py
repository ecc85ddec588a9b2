"""A subscription created outside Checkout becomes an order, one created by a checkout does not; on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from tasks.handler import FollowUp
from tasks.models import AppMessage, Entitlement, Order
from tasks.orders import subscriptions_without_checkout
from tests.support.business import HANDOFF_SECRET, NOW, Business, at_once
from tests.support.lives import checkout, subscription
from tests.support.peers import Answer, Asked, Peer, Stripe

BEGUN = subscription("created", 1, 0, "active", "basic")
DAY = 86400


def stripe_with(*sessions: dict[str, Any], status: str = "active") -> Peer:
    """A Stripe that has this subscription, and these checkout sessions for it."""

    def reply(asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        if path == "/v1/checkout/sessions":
            assert query == "subscription=sub_1"
            return Answer(body=json.dumps({"object": "list", "data": sessions, "has_more": False}).encode())
        assert path == "/v1/subscriptions/sub_1"
        return Answer(body=json.dumps(BEGUN.object | {"status": status}).encode())

    return Peer(reply)


def told(business: Business, peer: Peer) -> list[FollowUp]:
    """The follow-ups of the event of a new subscription."""
    business.settings = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
    business.settings |= {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    return BEGUN.to(business)


def in_force(business: Business) -> list[tuple[str, str]]:
    rows = business.all(select(Entitlement).where(Entitlement.revoked_at.is_(None)))
    return [(row.session_id, row.product) for row in rows]


def test_a_subscription_created_by_api_gives_access_and_notifies_the_application(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
        assert (later.task, later.delay_seconds) == ("tasks.sold_elsewhere.record", 30)
        assert in_force(business) == []
        business.follow(subscriptions_without_checkout.record_order, later)
    assert in_force(business) == [("sub_1", "basic")]
    said = business.one(select(AppMessage))
    assert (said.type, said.data["session"], said.data["customer"]) == ("access.granted", "sub_1", "cus_1")


def test_its_end_revokes_access(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
        business.follow(subscriptions_without_checkout.record_order, later)
    with stripe_with(status="canceled") as peer:
        business.settings["STRIPE_API_BASE"] = peer.url
        subscription("deleted", 2, 10, "canceled").to(business)
    assert in_force(business) == []


def test_a_subscription_of_a_checkout_is_left_to_its_session_whose_event_may_come_later(business: Business) -> None:
    with stripe_with({"id": "cs_1", "created": int(NOW.timestamp()) - DAY}) as peer:
        assert told(business, peer) == []
    assert business.all(select(Order)) == []


def test_a_session_found_only_by_the_second_check_prevents_the_order_too(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
    with stripe_with({"id": "cs_1", "created": int(NOW.timestamp())}) as peer:
        business.settings["STRIPE_API_BASE"] = peer.url
        assert business.follow(subscriptions_without_checkout.record_order, later) == []
    assert business.all(select(Order)) == []


def test_a_session_recorded_meanwhile_keeps_its_order_the_only_one(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
        checkout("completed", 2, 5, metadata={"product": "club"}).to(business)
        assert business.follow(subscriptions_without_checkout.record_order, later) == []
    assert in_force(business) == [("cs_1", "club")]


def test_a_session_recorded_during_the_call_keeps_its_order_the_only_one(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
        reply, session = peer.reply, checkout("completed", 2, 5)

        def slowly(asked: Asked) -> Answer:
            if asked.path.startswith("/v1/checkout/sessions"):
                session.to(business)
            return reply(asked)

        peer.reply = slowly
        assert business.follow(subscriptions_without_checkout.record_order, later) == []
    assert in_force(business) == [("cs_1", "club")]


def test_a_session_too_old_for_stripe_to_resend_does_not_prevent_the_order(business: Business) -> None:
    """The subscription started before Holdfast was installed."""
    with stripe_with({"id": "cs_0", "created": int(NOW.timestamp()) - 31 * DAY}) as peer:
        (later,) = told(business, peer)
        business.follow(subscriptions_without_checkout.record_order, later)
    assert in_force(business) == [("sub_1", "basic")]


def test_concurrent_events_of_one_subscription_make_one_order_and_one_message(business: Business) -> None:
    with stripe_with() as peer:
        (later,) = told(business, peer)
        at_once(lambda n: business.follow(subscriptions_without_checkout.record_order, later, event_id=f"evt_{n}"), 3)
    assert in_force(business) == [("sub_1", "basic")]
    assert business.one(select(AppMessage.type)) == "access.granted"


@pytest.mark.parametrize("status", ["incomplete", "canceled"])
def test_a_subscription_that_gives_no_access_makes_no_call(business: Business, status: str) -> None:
    with stripe_with(status=status) as peer:
        assert told(business, peer) == []
    assert [asked.path for asked in peer.asked] == ["/v1/subscriptions/sub_1"]


def test_without_an_api_key_no_order_is_recorded(business: Business) -> None:
    assert BEGUN.to(business) == []
    assert business.all(select(Order)) == []
