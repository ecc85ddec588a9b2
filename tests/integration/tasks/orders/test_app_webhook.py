"""The webhooks to the user's application, on both databases."""

from __future__ import annotations

import json
from collections.abc import Mapping

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


def sold(business: Business) -> Mapping[str, FollowUp]:
    """The webhook jobs of a paid checkout."""
    item = {"price": {"id": "price_1", "product": "course", "type": "one_time"}, "quantity": 3}
    owed = business.run(checkout_completed, checkout(subscription="sub_1", metadata={}, line_items={"data": [item]}))
    return {one.effect: one for one in owed if one.task == "tasks.app_webhook.deliver"}


def test_the_official_library_verifies_what_the_application_gets(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)  # the library checks the age
    with Peer(lambda _: Answer(204)) as app:
        business.settings = listening(app)
        for follow_up in sold(business).values():
            business.follow(deliver, follow_up)
        (refunded,) = business.run(charge_refunded, refund(), event_id="evt_2")
        business.follow(deliver, refunded, event_id="evt_2")
    fulfilled, granted, revoked = (Webhook(HANDOFF_SECRET).verify(one.body, dict(one.headers)) for one in app.asked)
    order = {"session": "cs_1", "customer": "cus_1", "client_reference": "user_7", "subscription": "sub_1"}
    when = {"timestamp": business.now.isoformat()}
    access = {**order, "entitlements": ["course"]}
    items = [{"price": "price_1", "product": "course", "quantity": 3}]
    bought = {"items": items, "amount_total": 4900, "currency": "usd"}
    assert fulfilled == {"type": "order.fulfilled", **when, "data": access | bought}
    assert granted == {"type": "access.granted", **when, "data": access | {"in_force": ["course"], "change": 1}}
    why = {"in_force": [], "change": 2, "reason": "refunded"}
    assert revoked == {"type": "access.revoked", **when, "data": access | why}
    assert len({one.headers["webhook-id"] for one in app.asked}) == 3


def test_no_message_holds_an_address(business: Business) -> None:
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    sold(business)
    said = json.dumps([row.data for row in business.all(select(AppMessage))])
    assert "user_7" in said
    assert "ada@example.com" not in said


@pytest.mark.parametrize("status", [400, 404, 429, 500, 302])
def test_every_attempt_sends_the_same_body_and_webhook_id(business: Business, status: int) -> None:
    answers = iter([status, 200])
    with Peer(lambda _: Answer(next(answers))) as app:
        business.settings = listening(app)
        follow_up = sold(business)["order.fulfilled.cs_1"]
        with pytest.raises(TransientError, match=f"the application answered {status}"):
            business.follow(deliver, follow_up)
        with business.sessions() as db:
            db.get_one(Order, "cs_1").client_reference = "user_8"
            db.commit()
        business.follow(deliver, follow_up)
        first, second = app.asked
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_while_a_secret_is_rotated_either_verifies(business: Business) -> None:
    business.now = NOW.now(NOW.tzinfo)
    other = "whsec_" + "A" * 32
    with Peer(lambda _: Answer()) as app:
        business.settings = listening(app) | {"APP_WEBHOOK_SECRET": f"{other},{HANDOFF_SECRET}"}
        business.follow(deliver, sold(business)["order.fulfilled.cs_1"])
    (asked,) = app.asked
    for secret in (other, HANDOFF_SECRET):
        assert Webhook(secret).verify(asked.body, dict(asked.headers))["type"] == "order.fulfilled"


def test_an_application_that_answers_410_gets_no_further_attempt(business: Business) -> None:
    with Peer(lambda _: Answer(410)) as app:
        business.settings = listening(app)
        follow_up = sold(business)["order.fulfilled.cs_1"]
        with pytest.raises(PermanentError, match="410"):
            business.follow(deliver, follow_up)


def test_a_message_pending_when_the_url_was_removed_is_a_dead_letter(business: Business) -> None:
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    follow_up = sold(business)["order.fulfilled.cs_1"]
    business.settings = {}
    with pytest.raises(PermanentError, match="APP_WEBHOOK_URL is not set"):
        business.follow(deliver, follow_up)


def test_messages_about_one_order_are_never_delivered_at_once(business: Business) -> None:
    business.settings = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
    assert {one.ordering_key for one in sold(business).values()} == {"cs_1"}
