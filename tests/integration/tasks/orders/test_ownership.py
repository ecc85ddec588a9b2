"""One Stripe account for several sites: what is not ours is recorded, and nothing else happens; on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from settings import load
from tasks.models import AppMessage, Entitlement, Notification, Order, PaymentGrace, Subscription
from tasks.ownership import is_ours
from tests.support.business import HANDOFF_SECRET, Business
from tests.support.lives import Happened, checkout, invoice, item, subscription

APP = {"APP_WEBHOOK_URL": "http://app.internal/hook", "APP_WEBHOOK_SECRET": HANDOFF_SECRET}
OURS = {"OWN_PRODUCTS": "prod_ours,price_ours"}
MARKED = {"OWN_METADATA": "site=shop,app=crm"}


def line(product: str, price: str = "price_1") -> dict[str, Any]:
    return {"product": product, "price": price}


@pytest.mark.parametrize(
    ("environ", "items", "metadata", "ours"),
    [
        ({}, [line("prod_other")], {}, True),
        (OURS, [line("prod_ours")], {}, True),
        (OURS, [line("prod_other", "price_ours")], {}, True),
        (OURS, [line("prod_other"), line("prod_ours")], {}, True),
        (OURS, [line("prod_other")], {"site": "shop"}, False),
        (OURS, [], {}, False),
        (OURS, None, {}, True),
        (MARKED, [line("prod_other")], {"site": "shop"}, True),
        (MARKED, [line("prod_other")], {"app": "crm"}, True),
        (MARKED, [line("prod_ours")], {"site": "other"}, False),
        (MARKED, None, {}, False),
        (OURS | MARKED, [line("prod_ours")], {"site": "other"}, True),
        (OURS | MARKED, [line("prod_other")], {"site": "shop"}, True),
        (OURS | MARKED, [line("prod_other")], {"site": "other"}, False),
    ],
)
def test_what_is_ours_says_the_list_or_the_metadata(
    environ: dict[str, str], items: list[dict[str, Any]] | None, metadata: dict[str, str], ours: bool
) -> None:
    assert is_ours(load(environ), items, None, metadata) is ours


def effects(business: Business) -> list[Any]:
    return [row for table in (Order, Entitlement, Notification, AppMessage) for row in business.all(select(table))]


@pytest.mark.parametrize(
    ("environ", "fields"),
    [
        (OURS, {"metadata": {}, "line_items": {"data": [item("item", "prod_other_site")], "has_more": False}}),
        (OURS, {"metadata": {"product": "prod_other_site"}}),
        (MARKED, {"metadata": {"site": "other"}}),
    ],
)
def test_a_sale_of_another_site_is_no_order_and_no_mail(
    business: Business, environ: dict[str, str], fields: dict[str, Any]
) -> None:
    """bug-reports.md 6"""
    business.settings = APP | environ
    once = {"mode": "payment", "subscription": None, "invoice": None, "payment_intent": "pi_9"}
    assert checkout("completed", 2, 1, **{**once, **fields}).to(business) == []
    assert effects(business) == []


@pytest.mark.parametrize("environ", [OURS, MARKED])
def test_a_subscription_of_another_site_gives_no_access(business: Business, environ: dict[str, str]) -> None:
    business.settings = APP | environ
    assert subscription("created", 1, 0, "active", "prod_other_site").to(business) == []
    assert business.one(select(Subscription.status)) == "active", "it is recorded"
    assert effects(business) == []


def test_a_subscription_that_the_metadata_mark_is_ours(business: Business) -> None:
    business.settings = dict(MARKED)
    event = subscription("created", 1, 0, "active", "plan")
    Happened(event.id, event.type, event.created, event.object | {"metadata": {"site": "shop"}}).to(business)
    assert business.one(select(Entitlement.product)) == "plan"


@pytest.mark.parametrize(("named", "dunned"), [("prod_ours", 1), ("prod_other_site", 0)])
def test_the_failed_payment_of_a_subscription_counts_by_the_product_that_its_metadata_name(
    business: Business, named: str, dunned: int
) -> None:
    """As its access does, whatever its items are."""
    business.settings = dict(OURS)
    other = "prod_other_site" if dunned else "prod_ours"
    subscription("created", 1, 0, "active", other, metadata={"product": named}).to(business)
    invoice("payment_failed", 2, 10, next_payment_attempt=None).to(business)
    assert len(business.all(select(PaymentGrace))) == dunned
