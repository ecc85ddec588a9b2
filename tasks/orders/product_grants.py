"""Purchased items, as listed by checkout sessions, subscriptions and invoices, and the entitlements that they grant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from tasks.connected_accounts import within
from tasks.payloads import Id, Ref, Text, ref

# One purchased item, as stored: price, lookup_key, product, quantity, renews; period_end, if others differ in it.
Item = dict[str, Any]


class Price(Struct):
    id: Id | None = None
    product: Ref = None
    type: Text | None = None  # recurring | one_time
    lookup_key: Text | None = None  # the shop's name for the price, which it can give to another one


def make_item(price: Price | None, quantity: int | None) -> Item:
    """`renews`: it belongs to a subscription."""
    price = price or Price()
    return {
        "price": price.id,
        "lookup_key": price.lookup_key,
        "product": ref(price.product),
        "quantity": quantity,
        "renews": price.type != "one_time",
    }


def named_item(product: str) -> Item:
    """The item that stands for all others where the shop names a product in the metadata."""
    return {"price": None, "product": product, "quantity": 1, "renews": True}


def sold_items(product: str | None, items: Sequence[Item] | None) -> list[Item]:
    """What is sold: the product that the shop names in the metadata, else the items."""
    return [named_item(product)] if product else list(items or ())


def serialize_items(items: Sequence[Item]) -> list[Item]:
    """The items as sent to the application."""
    return [{name: one[name] for name in ("price", "product", "quantity")} for one in items]


def granted_names(grants: Mapping[str, tuple[str, ...]], item: Item, account: str = "") -> tuple[str, ...]:
    """The names of the entitlements for an item: those of its price, else of the price's lookup key, else of its
    product, else the product's id.

    `grants` is FULFILMENT. What a connected account sells is named with that account (`acct_1/prod_1`), in `grants`
    too: the account chooses the ids of its products. An item without a product grants nothing.
    """
    ids = (item[name] for name in ("price", "lookup_key", "product") if item.get(name))
    listed = next((key for key in (within(account, one) for one in ids) if key in grants), None)
    if listed is None:
        return (within(account, item["product"]),) if item["product"] else ()
    return tuple(grants[listed])


def granted(grants: Mapping[str, tuple[str, ...]], items: Sequence[Item], account: str = "") -> dict[str, int | None]:
    """The entitlements of these items with their quantities: the sum over the items, None if one is not counted."""
    found: dict[str, int | None] = {}
    for item in items:
        for name in granted_names(grants, item, account):
            found[name] = add_quantities(found.get(name, 0), item["quantity"])
    return dict(sorted(found.items()))


def add_quantities(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
