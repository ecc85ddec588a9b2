"""Access is computed from the stored facts in any order, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.billing import payments, refunds
from tasks.handler import Attempt, FollowUp
from tasks.models import AppMessage, Base, Charge, DeletedCustomer, Dispute, Entitlement, Order, Subscription
from tasks.orders import access
from tasks.orders.product_grants import Price, make_item
from tests.support.business import HANDOFF_SECRET, NOW, Business, at_once
from tests.support.lives import invoice
from tests.support.lives import refund as lives_refund

IDS = {"customer": "cus_1", "subscription": "sub_1", "payment_intent": "pi_1", "invoice": "in_1"}
MONEY = {"amount": 4900, "currency": "eur", "updated_at": NOW}
APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}


def order(business: Business, session: str = "cs_1", kind: str = "one_time", **ids: str) -> None:
    """A fulfilled order of two products, whose access is not synced yet."""
    state: dict[str, Any] = {"state": "fulfilled", "amount_total": 4900, "currency": "eur", "created_at": NOW}
    bought = [make_item(Price("price_1", name, kind), 1) for name in ("book", "club")]
    with business.sessions() as db:
        db.add(Order(session_id=session, bought=bought, **state, **(ids or IDS)))
        db.commit()


def learn(*rows: Base, **names: str) -> Callable[[Attempt, Session], list[FollowUp]]:
    """A handler that inserts these rows and syncs access."""

    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        db.add_all(rows)
        return access.sync_entitlements(db, attempt, **names)

    return handler


def in_force(business: Business) -> list[str]:
    return sorted(business.all(select(Entitlement.product).where(Entitlement.revoked_at.is_(None))))


def refund(**ids: str) -> Charge:
    past = {"created": 1, "seen_created": 2, "amount_refunded": 4900, "refunded": True}
    return Charge(id="ch_1", **past, **MONEY, **ids)


def dispute(status: str, **ids: str) -> Dispute:
    about = {"charge": "ch_1", "reason": "general", "charge_created": 1, "seen_created": 1, "seen_event": "evt_0"}
    return Dispute(id="dp_1", status=status, **about, **MONEY, **ids)


def subscription(status: str) -> Subscription:
    return Subscription(id="sub_1", customer="cus_1", status=status, updated_at=NOW)


@pytest.mark.parametrize("name", ["session", *IDS])
def test_an_order_is_found_by_each_of_its_ids(business: Business, name: str) -> None:
    order(business)
    business.run(learn(**{name: ({"session": "cs_1"} | IDS)[name]}), effect="granted")
    assert in_force(business) == ["book", "club"]


@pytest.mark.parametrize(
    ("row", "name", "reason"),
    [
        (partial(refund, payment_intent="pi_1"), "payment_intent", "refunded"),
        (partial(refund, invoice="in_1"), "invoice", "refunded"),
        (partial(dispute, "lost", payment_intent="pi_1"), "payment_intent", "dispute_lost"),
        (partial(dispute, "lost", invoice="in_1"), "invoice", "dispute_lost"),
        (partial(DeletedCustomer, id="cus_1", deleted_at=NOW), "customer", "customer_deleted"),
    ],
)
def test_a_fact_that_denies_access_revokes_it_whether_it_came_before_or_after_the_order(
    business: Business, row: Callable[[], Base], name: str, reason: str
) -> None:
    business.settings = APP
    order(business)
    assert len(business.run(learn(session="cs_1"), effect="first")) == 1
    (told,) = business.run(learn(row(), **{name: IDS[name]}), effect="second")
    assert in_force(business) == []
    message = business.one(select(AppMessage).filter_by(id=told.args["message"]))
    assert (message.type, message.data["reason"]) == ("access.revoked", reason)
    order(business, "cs_2")
    assert business.run(learn(session="cs_2"), effect="third") == []
    assert in_force(business) == [], "the order came after the fact"


def test_a_dispute_is_found_by_its_charge_too(business: Business) -> None:
    order(business)
    charge = refund(payment_intent="pi_1")
    charge.refunded = False
    business.run(learn(dispute("lost"), charge, session="cs_1"), effect="both")
    assert in_force(business) == []


def test_other_customers_orders_do_not_change(business: Business) -> None:
    order(business, "cs_1", payment_intent="pi_1")
    order(business, "cs_2", payment_intent="pi_2")
    business.run(learn(session="cs_1"), effect="one")
    business.run(learn(session="cs_2"), effect="two")
    business.run(learn(refund(payment_intent="pi_1"), payment_intent="pi_1"), effect="refund")
    left = select(Entitlement.source).where(Entitlement.revoked_at.is_(None)).distinct()
    assert business.all(left) == ["cs_2"]


def test_an_order_without_ids_has_nothing_in_common_with_rows_without_ids(business: Business) -> None:
    order(business, customer="cus_9")
    business.run(learn(refund(), dispute("lost"), session="cs_1"), effect="guest")
    assert in_force(business) == ["book", "club"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (partial(subscription, "canceled"), "subscription_canceled"),
        (partial(subscription, "suspended"), "subscription_suspended"),
        (partial(refund, subscription="sub_1"), "refunded"),
        (partial(dispute, "lost", subscription="sub_1"), "dispute_lost"),
        (partial(DeletedCustomer, id="cus_1", deleted_at=NOW), "customer_deleted"),
    ],
)
def test_a_fact_that_ends_a_plan_revokes_it_whether_it_came_before_or_after_its_checkout(
    business: Business, row: Callable[[], Base], reason: str
) -> None:
    business.settings = APP | {"ACCESS_AFTER_REFUND": "revoke"}
    order(business, kind="recurring")
    assert len(business.run(learn(session="cs_1"), effect="first")) == 1
    (told,) = business.run(learn(row(), subscription="sub_1", customer="cus_1"), effect="second")
    assert in_force(business) == []
    message = business.one(select(AppMessage).filter_by(id=told.args["message"]))
    assert (message.type, message.data["reason"]) == ("access.revoked", reason)
    order(business, "cs_2", kind="recurring")
    assert business.run(learn(session="cs_2"), effect="third") == []
    assert in_force(business) == [], "the order came after the fact"


@pytest.mark.parametrize("status", ["canceled", "paused", "unpaid", "suspended"])
def test_what_was_bought_outright_survives_the_plan(business: Business, status: str) -> None:
    order(business)
    business.run(learn(session="cs_1"), effect="first")
    business.run(learn(subscription(status), subscription="sub_1"), effect="second")
    assert in_force(business) == ["book", "club"]


def test_each_change_is_sent_once_with_its_number(business: Business) -> None:
    business.settings = APP
    order(business, kind="recurring")
    assert [len(business.run(learn(session="cs_1"), event_id=f"evt_{n}")) for n in range(3)] == [1, 0, 0]
    business.run(learn(subscription("canceled"), subscription="sub_1"), event_id="evt_3")
    with business.sessions() as db:
        db.get_one(Subscription, "sub_1").status = "active"
        db.commit()
    business.run(learn(subscription="sub_1"), event_id="evt_4")
    said = sorted((row.data["sequence"], row.type) for row in business.all(select(AppMessage)))
    assert said == [(1, "access.granted"), (2, "access.revoked"), (3, "access.granted")]
    assert in_force(business) == ["book", "club"]


def test_without_an_application_access_changes_all_the_same(business: Business) -> None:
    order(business)
    assert business.run(learn(session="cs_1"), effect="granted") == []
    assert in_force(business) == ["book", "club"]
    assert business.all(select(AppMessage)) == []


def test_an_order_and_its_refund_recorded_concurrently_end_without_access(business: Business) -> None:
    """Each runs before the other commits and would not see its rows; the last to commit must see them."""

    def record_order(attempt: Attempt, db: Session) -> list[FollowUp]:
        access.lock_entitlements(db, session="cs_1", payment_intent="pi_1")
        bought = [make_item(Price(product="book", type="one_time"), 1)]
        fields: dict[str, Any] = {"amount_total": 1, "currency": "eur", "created_at": NOW, "bought": bought}
        db.add(Order(session_id="cs_1", state="fulfilled", **fields, **IDS))
        return slowly(access.sync_entitlements(db, attempt, session="cs_1"))

    def record_refund(attempt: Attempt, db: Session) -> list[FollowUp]:
        return slowly(learn(refund(payment_intent="pi_1"), payment_intent="pi_1")(attempt, db))

    handlers = (record_order, record_refund)
    at_once(lambda n: business.run(handlers[n], event_id=f"evt_{n}"), 2)
    assert business.all(select(Entitlement.product)) == ["book"]
    assert in_force(business) == []


def test_a_renewal_and_its_refund_recorded_concurrently_end_without_access(business: Business) -> None:
    """The refund names only the renewal's invoice; the invoice's event names the subscription."""
    business.settings = {"ACCESS_AFTER_REFUND": "revoke"}
    order(business, kind="recurring", customer="cus_1", subscription="sub_1")
    business.run(learn(session="cs_1"), effect="granted")
    renewal, refunded = invoice("paid", 2, 10, id="in_2"), lives_refund(3, 10, made=5, invoice="in_2")

    def tell(number: int) -> None:
        event, handler = ((renewal, payments.invoice_paid), (refunded, refunds.charge_refunded))[number]
        body = {"created": event.created, "data": {"object": event.object}}
        business.run(lambda attempt, db: slowly(handler(attempt, db)), body, event_id=event.id, effect="slowly")

    at_once(tell, 2)
    assert in_force(business) == []


def slowly(follow_ups: list[FollowUp]) -> list[FollowUp]:
    """The time in which the other would miss what is not committed yet."""
    time.sleep(0.3)
    return follow_ups
