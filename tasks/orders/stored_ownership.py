"""Whether a stored subscription or invoice is for what we sell, by tasks/ownership.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from settings import Settings
from tasks.models import Invoice, Subscription
from tasks.orders.product_grants import Item, sold_items
from tasks.ownership import is_ours


def is_subscription_ours(
    settings: Settings,
    row: Subscription | None,
    meta: Mapping[str, Any] | None = None,
    lines: Sequence[Item] | None = None,
) -> bool:
    """Whether a subscription is ours, or an invoice of it with this metadata. `row`: None if it is not known.

    `lines` are what the invoice bills: they tell while the items of the subscription are not known. A subscription that
    is known to have no items sells nothing of ours.
    """
    if row is None:
        return is_ours(settings, lines or None, meta)
    unknown: list[Item] | None = [] if row.items_complete else None
    return is_ours(settings, sold_items(row.product, row.items) or lines or unknown, meta, row.meta)


def is_invoice_ours(settings: Settings, invoice: Invoice, row: Subscription | None) -> bool:
    """Whether an invoice is for what we sell. `row` is its subscription, None if it has none or it is not known."""
    return is_subscription_ours(settings, row, invoice.meta, invoice.lines)
