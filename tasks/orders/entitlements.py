"""What was bought, as checkout sessions and subscriptions list it, and what that grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from tasks.payloads import Id, Ref, Text, ref

Item = dict[str, Any]  # one line of what was bought, as rows keep it: price, product, quantity, renews


class Price(Struct):
    id: Id | None = None
    product: Ref = None
    type: Text | None = None  # recurring | one_time


def make_item(price: Price | None, quantity: int | None) -> Item:
    """`renews`: it is part of a subscription, whose items stand for it as soon as they are known."""
    price = price or Price()
    return {
        "price": price.id,
        "product": ref(price.product),
        "quantity": quantity,
        "renews": price.type != "one_time",
    }


def serialize_items(items: Sequence[Item]) -> list[Item]:
    """As the application hears of them."""
    return [{name: one[name] for name in ("price", "product", "quantity")} for one in items]


def current_items(bought: Sequence[Item], plan: Sequence[Item] | None) -> list[Item]:
    """What is bought now: of a subscription, its `plan` as it is now stands for what renews; None: it is not known.

    Where the shop itself named what was bought, nothing renews, and the plan is of no matter.
    """
    if plan is None or (bought and not any(one["renews"] for one in bought)):
        return list(bought)
    return [*(one for one in bought if not one["renews"]), *plan]


def granted_names(grants: Mapping[str, tuple[str, ...]], items: Sequence[Item]) -> list[str]:
    """The entitlements for what was bought: those of the price, else of the product, else one named like the product.

    `default` stands for a purchase of which nobody knows what it was.
    """
    keys = [key for one in items if (key := one["price"] if one["price"] in grants else one["product"])] or ["default"]
    return sorted({name for key in keys for name in grants.get(key, (key,))})
