"""Purchased items, as listed by checkout sessions and subscriptions, and the entitlements that they grant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from tasks.payloads import Id, Ref, Text, ref

Item = dict[str, Any]  # one purchased item, as stored: price, product, quantity, renews


class Price(Struct):
    id: Id | None = None
    product: Ref = None
    type: Text | None = None  # recurring | one_time


def make_item(price: Price | None, quantity: int | None) -> Item:
    """`renews`: it belongs to a subscription, whose current items replace it once they are known."""
    price = price or Price()
    return {
        "price": price.id,
        "product": ref(price.product),
        "quantity": quantity,
        "renews": price.type != "one_time",
    }


def serialize_items(items: Sequence[Item]) -> list[Item]:
    """The items as sent to the application."""
    return [{name: one[name] for name in ("price", "product", "quantity")} for one in items]


def current_items(bought: Sequence[Item], plan: Sequence[Item] | None) -> list[Item]:
    """The items an order has now: those that renew are replaced by the subscription's current items, `plan`.

    `plan` is None if it is not known, and ignored if no item renews (the shop named the product in the metadata).
    """
    if plan is None or (bought and not any(one["renews"] for one in bought)):
        return list(bought)
    return [*(one for one in bought if not one["renews"]), *plan]


def granted_names(grants: Mapping[str, tuple[str, ...]], items: Sequence[Item]) -> list[str]:
    """The names of the entitlements for these items: those of the price, else of the product, else the product's id.

    `grants` is FULFILMENT. Its key "default" is used if no item is known.
    """
    keys = [key for one in items if (key := one["price"] if one["price"] in grants else one["product"])] or ["default"]
    return sorted({name for key in keys for name in grants.get(key, (key,))})
