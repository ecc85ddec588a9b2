"""What a subscription does next, by Stripe: the end of its trial, its planned end, what it will cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from tasks.orders.product_grants import Price
from tasks.payloads import Int64, Ref, Text, UnixTime

Terms = Mapping[str, Any]  # as stored in the row of a subscription


class PlanPrice(Price):
    """`amount` is its name in API versions without prices. Both are null for a price with tiers."""

    unit_amount: Int64 | None = None
    amount: Int64 | None = None


class EndBehavior(Struct):
    missing_payment_method: Text | None = None  # cancel | create_invoice | pause


class TrialSettings(Struct):
    end_behavior: EndBehavior = field(default_factory=EndBehavior)


class AutomaticTax(Struct):
    enabled: bool = False


class TermsObject(Struct):
    """The fields of a subscription that its terms are made of."""

    trial_end: UnixTime | None = None
    cancel_at: UnixTime | None = None
    cancel_at_period_end: bool = False
    currency: Text | None = None
    default_payment_method: Ref = None
    default_source: Ref = None
    trial_settings: TrialSettings | None = None
    pause_collection: dict[str, Any] | None = None
    discount: dict[str, Any] | None = None  # before API version 2025-03-31 (basil)
    discounts: list[Any] | None = None
    automatic_tax: AutomaticTax | None = None
    default_tax_rates: list[Any] | None = None


def terms_of(found: TermsObject, prices: Iterable[tuple[PlanPrice | None, int | None]]) -> Terms:
    """The terms of a subscription with these prices and quantities. `amount` is None if it is not their sum."""
    behavior = found.trial_settings.end_behavior.missing_payment_method if found.trial_settings else None
    return {
        "trial_end": found.trial_end,
        "cancel_at": found.cancel_at,
        "cancel_at_period_end": found.cancel_at_period_end,
        "needs_method": behavior in ("cancel", "pause"),
        "has_method": bool(found.default_payment_method or found.default_source),
        "paused": found.pause_collection is not None,
        "amount": _amount(found, prices),
        "currency": found.currency,
    }


def is_charged(terms: Terms, at: int) -> bool:
    """Whether the subscription goes on at this time (seconds since 1970), and is charged then."""
    cancel_at = terms.get("cancel_at")
    ends = terms.get("cancel_at_period_end") or (cancel_at is not None and cancel_at <= at)
    return not ends and not terms.get("paused")


def _amount(found: TermsObject, prices: Iterable[tuple[PlanPrice | None, int | None]]) -> int | None:
    changed = found.discount or found.discounts or found.default_tax_rates
    if changed or (found.automatic_tax and found.automatic_tax.enabled):
        return None
    units = [
        (price.amount if price.unit_amount is None else price.unit_amount) if price else None for price, _ in prices
    ]
    total = 0
    for (_, quantity), unit in zip(prices, units, strict=True):
        if unit is None or quantity is None:
            return None
        total += unit * quantity
    return total if units else None
