"""The lines of an invoice: what it bills, in old and new API versions of Stripe, and as stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from tasks.payloads import Id, Int64, Ref, Text, UnixTime, ref

# Invoices that start a billing period even if it costs nothing: a trial, a coupon, usage of zero.
PERIOD_REASONS = frozenset({"subscription_create", "subscription_cycle"})


class ItemDetails(Struct):
    proration: bool = False


class LineParent(Struct):
    """Since API version 2025-03-31 (basil), before on the line. One of the two is set, by the kind of the line."""

    subscription_item_details: ItemDetails | None = None
    invoice_item_details: ItemDetails | None = None


class LinePrice(Struct):
    """A price, or in old API versions a plan."""

    id: Id | None = None
    product: Ref = None


class PriceDetails(Struct):
    price: Ref = None
    product: Ref = None


class Pricing(Struct):
    price_details: PriceDetails | None = None


class Period(Struct):
    start: UnixTime | None = None
    end: UnixTime | None = None


class InvoiceLine(Struct):
    """The fields that we use of https://docs.stripe.com/api/invoice-line-item/object."""

    amount: Int64 = 0
    quantity: Int64 | None = None
    description: Text | None = None
    type: Text | None = None
    proration: bool = False
    parent: LineParent | None = None
    price: LinePrice | None = None
    plan: LinePrice | None = None
    pricing: Pricing | None = None
    period: Period | None = None

    @property
    def of_subscription_item(self) -> bool:
        """Whether it bills an item of a subscription, and not a proration."""
        if self.parent is None:
            return self.type == "subscription" and not self.proration
        item = self.parent.subscription_item_details
        return item is not None and not item.proration

    @property
    def once(self) -> bool:
        """Whether it bills something that was sold once."""
        if self.parent is None:
            return self.type == "invoiceitem" and not self.proration
        item = self.parent.invoice_item_details
        return item is not None and not item.proration

    @property
    def starts_period(self) -> bool:
        """Whether it is a plan's price for a whole new billing period."""
        return self.amount > 0 and self.of_subscription_item

    @property
    def sold(self) -> tuple[str | None, str | None]:
        """The ids of price and product."""
        details = self.pricing.price_details if self.pricing else None
        if details is not None:
            return ref(details.price), ref(details.product)
        price = self.price or self.plan or LinePrice()
        return price.id, ref(price.product)


class InvoiceLines(Struct):
    data: list[InvoiceLine] = field(default_factory=list)
    has_more: bool = False


def stored_lines(lines: Sequence[InvoiceLine], billing_reason: str | None) -> list[dict[str, Any]]:
    """The lines as stored. `starts_period`: it pays for a whole period; `once`: it is no part of a subscription."""
    return [
        {
            **dict(zip(("price", "product"), line.sold, strict=True)),
            "amount": line.amount,
            "quantity": line.quantity,
            "description": line.description,
            "starts_period": line.of_subscription_item and (line.amount > 0 or billing_reason in PERIOD_REASONS),
            "once": line.once,
            "period_end": line.period.end if line.period else None,
        }
        for line in lines
    ]


def latest_period_end(lines: Sequence[dict[str, Any]]) -> int | None:
    """When the latest period ends that these lines start; seconds since 1970."""
    return max((line["period_end"] for line in lines if line["starts_period"] and line["period_end"]), default=None)
