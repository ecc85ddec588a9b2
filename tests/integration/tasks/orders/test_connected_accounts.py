"""What an account that STRIPE_CONNECTED_ACCOUNTS names can do, on both databases: sell what is its own."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from inbox.errors import PermanentError
from tasks.billing.customers import customer_deleted
from tasks.billing.disputes import dispute_changed
from tasks.billing.payments import payment_failed
from tasks.billing.refunds import charge_refunded
from tasks.billing.subscriptions import subscription_changed
from tasks.models import (
    AppMessage,
    Charge,
    Dispute,
    Entitlement,
    Invoice,
    Notification,
    Order,
    PaymentFailure,
    Subscription,
)
from tasks.orders.fulfilment import checkout_completed
from tasks.orders.product_grants import Price, granted, make_item
from tests.integration.tasks.billing.test_payments import failure
from tests.integration.tasks.billing.test_refunds import deleted, dispute, refund
from tests.integration.tasks.orders.test_fulfilment import checkout
from tests.support.business import HANDOFF_SECRET, Business

SELLER = {"account": "acct_1"}
ORIGINS = ({"account": "acct_1"}, {"context": "acct_1"}, {"context": "org_1/acct_1"})
APP = {"APP_WEBHOOK_URL": "http://app.internal", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}


def subscription() -> dict[str, Any]:
    about = {"id": "sub_1", "customer": "cus_1", "status": "active", "items": {"data": []}}
    return {"id": "evt", "type": "customer.subscription.updated", "created": 1, "data": {"object": about}}


def in_force(business: Business) -> list[tuple[str, str]]:
    rows = business.all(select(Entitlement).where(Entitlement.revoked_at.is_(None)).order_by(Entitlement.product))
    return [(row.account, row.product) for row in rows]


@pytest.mark.parametrize("origin", ORIGINS)
def test_what_a_connected_account_sells_is_not_the_product_of_the_platform(
    business: Business, origin: dict[str, str]
) -> None:
    business.settings = {"FULFILMENT": 'course = ["everything"]'}
    business.run(checkout_completed, checkout() | origin)
    assert in_force(business) == [("acct_1", "acct_1/course")]


def test_a_connected_account_has_grants_of_its_own() -> None:
    grants = {"prod_1": ("ours",), "price_1": ("ours",), "acct_1/price_1": ("theirs",)}
    assert list(granted(grants, [make_item(Price("price_1", "prod_1"), 1)], "acct_1")) == ["theirs"]
    assert list(granted(grants, [make_item(Price("price_2", "prod_1"), 1)], "acct_1")) == ["acct_1/prod_1"]
    assert granted(grants, [make_item(Price(None, None), 1)], "acct_1") == {}


def test_every_row_of_an_event_names_its_account(business: Business) -> None:
    handlers = (checkout_completed, subscription_changed, payment_failed, charge_refunded, dispute_changed)
    bodies = (checkout(subscription="sub_1"), subscription(), failure(), refund(), dispute())
    for number, (handler, body) in enumerate(zip(handlers, bodies, strict=True)):
        business.run(handler, body | SELLER, event_id=f"evt_{number}")
    tables: tuple[Any, ...] = (Order, Entitlement, Subscription, Invoice, PaymentFailure, Charge, Dispute)
    assert {table.__name__: business.one(select(table.account)) for table in tables} == {
        table.__name__: "acct_1" for table in tables
    }


def test_the_application_hears_which_account_has_sold(business: Business) -> None:
    business.settings = APP
    jobs = business.run(checkout_completed, checkout() | SELLER)
    messages = business.all(select(AppMessage))
    assert {(row.type, row.data["account"]) for row in messages} == {
        ("order.fulfilled", "acct_1"),
        ("access.granted", "acct_1"),
    }
    assert {job.ordering_key for job in jobs if job.task == "tasks.app_webhook.deliver"} == {"acct_1/cus_1"}


@pytest.mark.parametrize("names", [({}, SELLER), (SELLER, {}), (SELLER, {"account": "acct_2"})])
def test_a_customer_whom_another_account_has_deleted_keeps_access(business: Business, names: Any) -> None:
    ours, theirs = names
    business.run(checkout_completed, checkout() | ours, event_id="evt_1")
    before = in_force(business)
    business.run(customer_deleted, deleted() | theirs, event_id="evt_2")
    assert in_force(business) == before != []
    business.run(customer_deleted, deleted() | ours, event_id="evt_3")
    assert in_force(business) == []


def test_an_account_cannot_change_a_row_of_another(business: Business) -> None:
    business.run(checkout_completed, checkout(payment_status="unpaid"), event_id="evt_1")
    with pytest.raises(PermanentError, match="cs_1 in orders belongs to another Stripe account"):
        business.run(checkout_completed, checkout() | SELLER, event_id="evt_2")
    business.run(charge_refunded, refund() | SELLER, event_id="evt_3")
    assert business.one(select(Order.state)) == "awaiting_payment"
    assert business.all(select(Notification)) == []
