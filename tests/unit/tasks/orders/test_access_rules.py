"""The decision about access, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.orders.access_rules import Grant, Payment, Policy, Terms, order_grants, subscription_grants, taken_back
from tasks.orders.product_grants import Item

REVOKE = Policy("revoke")


def item(product: str, quantity: int | None = 1, price: str | None = "price_1") -> Item:
    return {"price": price, "product": product, "quantity": quantity, "renews": True}


def paid(created: int, buys: str = "", *, refunded: int = 0, lost: int = 0) -> Payment:
    """100 paid for a period of these products; "": it is not known of which."""
    return Payment(created, 100, frozenset(buys.split()) if buys else None, refunded, lost)


def provided(*payments: Payment, status: str = "active", policy: Policy = REVOKE, **options: Any) -> dict[str, str]:
    """Why each product of a subscription of `pro` and `seat` is not in force, "" if it is."""
    items = options.pop("items", [item("pro", price="price_pro"), item("seat", price="price_seat")])
    about = {"terms": Terms(), "ends": {}, "customer_deleted": False, **options}
    found = subscription_grants(items, {}, "", status=status, payments=payments, policy=policy, **about)
    return {name: grant.reason for name, grant in found.items()}


@pytest.mark.parametrize(
    ("payment", "reason"),
    [
        (Payment(1, 100), ""),
        (Payment(1, 100, refunded=99), ""),
        (Payment(1, 100, refunded=100), "refunded"),
        (Payment(1, 100, refunded=120), "refunded"),
        (Payment(1, 100, lost=5), ""),
        (Payment(1, 100, lost=100), "dispute_lost"),
        (Payment(1, 100, refunded=40, lost=60), "dispute_lost"),
        (Payment(1, 100, refunded=40, lost=59), ""),
        (Payment(1, 100, disputed=100), ""),
        (Payment(1, 0), ""),
    ],
)
def test_a_payment_is_taken_back_if_all_of_it_is(payment: Payment, reason: str) -> None:
    assert taken_back(payment, Policy(), of_subscription=False) == reason


@pytest.mark.parametrize(
    ("after_refund", "order", "subscription"),
    [("keep", "", ""), ("revoke_purchases", "refunded", ""), ("revoke", "refunded", "refunded")],
)
def test_the_setting_says_what_a_refund_revokes(after_refund: str, order: str, subscription: str) -> None:
    payment, policy = Payment(1, 100, refunded=100), Policy(after_refund)
    assert taken_back(payment, policy, of_subscription=False) == order
    assert taken_back(payment, policy, of_subscription=True) == subscription


@pytest.mark.parametrize("part", [{"refunded": 40, "disputed": 60}, {"lost": 40, "disputed": 60}, {"disputed": 100}])
def test_an_open_dispute_revokes_only_if_the_setting_says_so(part: dict[str, int]) -> None:
    payment = Payment(1, 100, None, **part)
    assert taken_back(payment, Policy("keep", "keep"), of_subscription=True) == ""
    assert taken_back(payment, Policy("keep", "revoke"), of_subscription=True) == "disputed"


@pytest.mark.parametrize(
    ("payments", "reasons"),
    [
        ([], ("", "")),
        ([paid(1, "pro seat", refunded=100)], ("refunded", "refunded")),
        ([paid(1, refunded=100)], ("refunded", "refunded")),
        ([paid(1, "pro seat", refunded=100), paid(2, "seat")], ("refunded", "")),
        ([paid(2, "seat"), paid(1, "pro seat", refunded=100)], ("refunded", "")),
        ([paid(1, "pro seat", refunded=100), paid(2)], ("", "")),
        ([paid(1), paid(2, "price_pro", lost=100)], ("dispute_lost", "")),
        ([paid(1, refunded=100), paid(2, "other")], ("refunded", "refunded")),
    ],
)
def test_a_payment_takes_back_the_items_whose_latest_period_it_paid_for(
    payments: list[Payment], reasons: tuple[str, str]
) -> None:
    assert provided(*payments) == dict(zip(("pro", "seat"), reasons, strict=True))


def test_a_product_that_the_shop_names_is_paid_by_every_period() -> None:
    club = [item("club", price=None)]
    assert provided(paid(1, "prod_1", refunded=100), items=club) == {"club": "refunded"}
    assert provided(paid(1, "prod_1", refunded=100), paid(2, "prod_2"), items=club) == {"club": ""}


@pytest.mark.parametrize("status", ["", "active", "trialing", "past_due"])
def test_a_status_that_entitles_provides_the_items(status: str) -> None:
    assert provided(status=status) == {"pro": "", "seat": ""}


@pytest.mark.parametrize(
    "status",
    ["suspended", "canceled", "unpaid", "paused", "incomplete", "incomplete_expired", "a word of next year"],
)
def test_any_other_status_provides_nothing(status: str) -> None:
    assert set(provided(status=status).values()) == {f"subscription_{status}"}


def test_a_deleted_customer_has_nothing() -> None:
    assert set(provided(customer_deleted=True).values()) == {"customer_deleted"}
    about: Any = {"payment": None, "policy": REVOKE, "customer_deleted": True}
    assert order_grants([item("book")], {}, "", **about) == {"book": Grant(1, "customer_deleted")}


def test_quantities_of_items_that_grant_the_same_add_up() -> None:
    grants = {"pro": ("access",), "seat": ("access",)}
    about: Any = {"status": "active", "terms": Terms(9), "ends": {}, "payments": (), "policy": REVOKE}
    about["customer_deleted"] = False
    assert subscription_grants([item("pro"), item("seat", 4)], grants, "", **about)["access"] == Grant(5, "", Terms(9))
    assert subscription_grants([item("pro"), item("seat", None)], grants, "", **about)["access"].quantity is None


def test_an_entitlement_lasts_until_the_last_of_its_items_ends() -> None:
    grants = {"pro": ("access", "support"), "seat": ("access",)}
    about: Any = {"status": "active", "terms": Terms(9), "ends": {"price_seat": 12}, "payments": (), "policy": REVOKE}
    items = [item("pro", price="price_pro"), item("seat", price="price_seat")]
    found = subscription_grants(items, grants, "", **about, customer_deleted=False)
    assert {name: grant.terms.until for name, grant in found.items()} == {"access": 12, "support": 9}


def test_an_entitlement_stays_while_one_of_its_items_provides_it_and_counts_only_that() -> None:
    grants = {"pro": ("access",), "seat": ("access",)}
    payments = [paid(1, "pro seat", refunded=100), paid(2, "seat")]
    about: Any = {"status": "active", "terms": Terms(), "ends": {}, "policy": REVOKE, "customer_deleted": False}
    items = [item("pro", price="price_pro"), item("seat", 4, price="price_seat")]
    assert subscription_grants(items, grants, "", payments=payments, **about) == {"access": Grant(4, "")}
