"""The webhooks to the user's application, on both databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook

from inbox.errors import PermanentError, TransientError
from tasks.billing.refunds import charge_refunded
from tasks.handler import FollowUp
from tasks.models import AppMessage, Order
from tasks.orders.app_webhook import deliver
from tasks.orders.fulfilment import checkout_completed
from tests.integration.tasks.billing.test_refunds import refund
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import HANDOFF_SECRET, NOW, Business
from tests.support.peers import Answer, Peer


def listening(peer: Peer) -> dict[str, str]:
    """The application is in a private network and not in CALL_OUT_ALLOWED_HOSTS."""
    return {"APP_WEBHOOK_URL": f"{peer.url}/holdfast", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}


def sold(business: Business, **fields: Any) -> Mapping[str, FollowUp]:
    """The webhook jobs of a paid checkout."""
    item = {"price": {"id": "price_1", "product": "course", "type": "one_time"}, "quantity": 3}
    owed = business.run(checkout_completed, checkout(metadata={}, line_items={"data": [item]}) | fields)
    return {one.effect: one for one in owed if one.task == "tasks.app_webhook.deliver"}


def test_the_official_library_verifies_what_the_application_gets(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)  # the library checks the age
    with Peer(lambda _: Answer(204)) as app:
        business.settings = listening(app)
        for follow_up in sold(business, livemode=True).values():
            business.follow(deliver, follow_up)
        (refunded,) = business.run(charge_refunded, refund(), event_id="evt_2")
        business.follow(deliver, refunded, event_id="evt_2")
    fulfilled, granted, revoked = (Webhook(HANDOFF_SECRET).verify(one.body, dict(one.headers)) for one in app.requests)
    when = {"timestamp": business.now.isoformat()}
    who = {"id": "cus_1", "client_reference": "user_7", "email": "ada@example.com", "metadata": {}}
    about = {"version": 1, "account": None, "livemode": True, "customer": who}
    times = {"until": None, "cancel_at": None, "past_due": False, "grace_until": None}
    held = {"access": [{"entitlement": "course", "source": "cs_1", "quantity": 3, **times}]}
    order: dict[str, Any] = {
        "id": "cs_1",
        "client_reference": "user_7",
        "metadata": {},
        "subscription": None,
        "payment_intent": "pi_1",
        "invoice": None,
        "entitlements": ["course"],
        "items": [{"price": "price_1", "product": "course", "quantity": 3}],
        "amount_total": 4900,
        "currency": "usd",
        "presentment_amount": None,
        "presentment_currency": None,
        "replaces": [],
    }
    assert fulfilled == {"type": "order.fulfilled", **when, "data": {**about, **held, "sequence": 1, "order": order}}
    what = {"entitlements": ["course"]}
    assert granted == {"type": "access.granted", **when, "data": {**about, **held, **what, "sequence": 2}}
    why = {"access": [], "sequence": 3, "reason": "refunded", "cancellation_reason": None}
    assert revoked == {"type": "access.revoked", **when, "data": {**about, **what, **why}}
    assert len({one.headers["webhook-id"] for one in app.requests}) == 3


def test_a_guest_is_told_apart_by_metadata_and_address(business: Business) -> None:
    """business.md 1.3: a buyer without a customer at Stripe, known to the shop by its own id."""
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    guest = checkout(customer=None, client_reference_id=None, metadata={"product": "course", "user_id": "42"})
    business.run(checkout_completed, guest)
    metadata = {"product": "course", "user_id": "42"}
    who = {"id": "cs_1", "client_reference": None, "email": "ada@example.com", "metadata": metadata}
    assert [row.data["customer"] for row in business.all(select(AppMessage))] == [who, who]


def test_a_guest_who_buys_twice_keeps_both_in_an_application_that_stores_by_customer_id(business: Business) -> None:
    """docs/application-webhook.md, the simplest correct application."""
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    for number, product in enumerate(("course", "book")):
        bought = {"id": f"cs_{number}", "payment_intent": f"pi_{number}", "metadata": {"product": product}}
        business.run(checkout_completed, checkout(customer=None, **bought), event_id=f"evt_{number}")
    stored: dict[str, tuple[int, list[str]]] = {}
    for row in business.all(select(AppMessage)):
        key, sequence = row.data["customer"]["id"], row.data["sequence"]
        if key not in stored or stored[key][0] < sequence:
            stored[key] = sequence, [one["entitlement"] for one in row.data["access"]]
    assert stored == {"cs_0": (2, ["course"]), "cs_1": (2, ["book"])}


@pytest.mark.parametrize("status", [400, 404, 429, 500, 302])
def test_every_attempt_sends_the_same_body_and_webhook_id(business: Business, status: int) -> None:
    answers = iter([status, 200])
    with Peer(lambda _: Answer(next(answers))) as app:
        business.settings = listening(app)
        follow_up = sold(business)["order.fulfilled.cus_1.1"]
        with pytest.raises(TransientError, match=f"the application answered {status}"):
            business.follow(deliver, follow_up)
        with business.sessions() as db:
            db.get_one(Order, "cs_1").client_reference = "user_8"
            db.commit()
        business.follow(deliver, follow_up)
        first, second = app.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_while_a_secret_is_rotated_either_verifies(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)
    other = "whsec_LaLaSwMfKQ9r8GKYqrTwjUPD8ILPZIo2"
    with Peer(lambda _: Answer()) as app:
        business.settings = listening(app) | {"APP_WEBHOOK_SECRET": f"{other},{HANDOFF_SECRET}"}
        business.follow(deliver, sold(business)["order.fulfilled.cus_1.1"])
    (request,) = app.requests
    for secret in (other, HANDOFF_SECRET):
        assert Webhook(secret).verify(request.body, dict(request.headers))["type"] == "order.fulfilled"


def test_an_application_that_answers_410_gets_no_further_attempt(business: Business) -> None:
    with Peer(lambda _: Answer(410)) as app:
        business.settings = listening(app)
        follow_up = sold(business)["order.fulfilled.cus_1.1"]
        with pytest.raises(PermanentError, match="410"):
            business.follow(deliver, follow_up)


def test_a_message_pending_when_the_url_was_removed_is_a_dead_letter(business: Business) -> None:
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    follow_up = sold(business)["order.fulfilled.cus_1.1"]
    business.settings = {}
    with pytest.raises(PermanentError, match="APP_WEBHOOK_URL is not set"):
        business.follow(deliver, follow_up)


def test_messages_about_one_customer_are_never_delivered_at_once(business: Business) -> None:
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    assert {one.ordering_key for one in sold(business).values()} == {"cus_1"}
