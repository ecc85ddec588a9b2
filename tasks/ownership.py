"""Ownership: one Stripe account may sell for several sites, and every endpoint receives the events of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from settings import Settings


def is_ours(settings: Settings, items: Sequence[Mapping[str, Any]] | None, *metadata: Mapping[str, Any] | None) -> bool:
    """Whether an object is one of ours, by OWN_PRODUCTS or by OWN_METADATA; without both, everything is.

    `items` have the keys `product` and `price`, as items and lines are stored; None: not known. An object of which only
    OWN_PRODUCTS could tell counts as ours while its items are not known.
    """
    if not settings.own_products and not settings.own_metadata:
        return True
    if any((found or {}).get(key) == value for key, value in settings.own_metadata for found in metadata):
        return True
    if items is None:
        return bool(settings.own_products)
    return any(item.get(name) in settings.own_products for item in items for name in ("product", "price"))
