"""Pure functions that decide access: what an order and what a subscription provides, and why something is not in force.

An order provides what was bought outright. A subscription provides its items while its status entitles to them. A
payment that was taken back, by refunds or a lost dispute that amount to all of it, takes with it what it bought: the
one-off items of its order, or the items of a subscription whose latest period it had paid for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.orders.product_grants import Item, add_quantities, granted_names

# https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses; past_due ends in our `suspended`.
ENTITLING = frozenset({"active", "trialing", "past_due"})
# https://docs.stripe.com/api/disputes/object#dispute_object-status; warning_* are inquiries: no money has moved.
OPEN_DISPUTE = frozenset({"needs_response", "under_review"})
LOST_DISPUTE = frozenset({"lost", "appeal_needs_response", "appeal_under_review"})  # an appeal presupposes a loss
NOT_FULFILLED, NO_LONGER_INCLUDED = "not_fulfilled", "plan_changed"


class Policy(NamedTuple):
    """The settings ACCESS_AFTER_REFUND (keep, revoke_purchases, revoke) and ACCESS_WHILE_DISPUTED (keep, revoke)."""

    after_refund: str = "revoke_purchases"
    while_disputed: str = "keep"


@dataclass(frozen=True, slots=True)
class Payment:
    """What was paid for an order or an invoice, and what of it was taken back. Amounts are in minor units.

    `created`: the date of the invoice, seconds since 1970. `buys`: the products and prices of which it pays for a
    period; None if not known: all items of the subscription.
    """

    created: int
    amount: int
    buys: frozenset[str] | None = None
    refunded: int = 0
    lost: int = 0  # by disputes
    disputed: int = 0  # and not decided yet


class Terms(NamedTuple):
    """When what a subscription provides ends; seconds since 1970. `past_due`: a payment is missing."""

    until: int | None = None
    cancel_at: int | None = None
    past_due: bool = False
    grace_until: int | None = None


class Grant(NamedTuple):
    """An entitlement from one source. `reason`: why it is not in force, "" if it is."""

    quantity: int | None
    reason: str
    terms: Terms = Terms()


def taken_back(payment: Payment, policy: Policy, *, of_subscription: bool) -> str:
    """Why a payment does not count any more: refunded, dispute_lost, disputed; "" if it does.

    Only if what was taken back amounts to all that was paid: a part leaves what was bought.
    """
    refunds_revoke = policy.after_refund == "revoke" or (policy.after_refund != "keep" and not of_subscription)
    if refunds_revoke and 0 < payment.amount <= payment.refunded:
        return "refunded"
    if payment.lost and payment.refunded + payment.lost >= payment.amount:
        return "dispute_lost"
    lost = payment.refunded + payment.lost + payment.disputed
    if policy.while_disputed == "revoke" and payment.disputed and lost >= payment.amount:
        return "disputed"
    return ""


def order_grants(
    items: Sequence[Item],
    grants: Mapping[str, tuple[str, ...]],
    account: str,
    *,
    payment: Payment | None,
    policy: Policy,
    customer_deleted: bool,
) -> dict[str, Grant]:
    """What a fulfilled order of these one-off items provides, by name."""
    reason = "customer_deleted" if customer_deleted else ""
    reason = reason or (taken_back(payment, policy, of_subscription=False) if payment else "")
    return _combine([(item, reason, Terms()) for item in items], grants, account)


def subscription_grants(
    items: Sequence[Item],
    grants: Mapping[str, tuple[str, ...]],
    account: str,
    *,
    status: str,
    terms: Terms,
    ends: Mapping[str, int],
    payments: Sequence[Payment],
    policy: Policy,
    customer_deleted: bool,
) -> dict[str, Grant]:
    """What a subscription of these items provides, by name. `status`: Stripe's or ours, "" if it is not known yet.

    `ends`: when the period of a price ends, if that differs from `terms`.
    """
    reason = "customer_deleted" if customer_deleted else ""
    reason = reason or (f"subscription_{status}" if status and status not in ENTITLING else "")
    found = [
        (
            item,
            reason or _period_taken_back(item, payments, policy),
            terms._replace(until=ends.get(item["price"], terms.until)),
        )
        for item in items
    ]
    return _combine(found, grants, account)


def _period_taken_back(item: Item, payments: Sequence[Payment], policy: Policy) -> str:
    """Why the latest paid period of an item does not count. A later period that is paid outweighs what came before.

    Of two payments with the same date, one that was taken back decides.
    """
    ids = {item["price"], item["product"]}
    paid = [
        (payment.created, taken_back(payment, policy, of_subscription=True))
        for payment in payments
        if payment.buys is None or item["price"] is None or payment.buys & ids
    ]
    return max(paid, default=(0, ""))[1]


def _combine(
    items: Sequence[tuple[Item, str, Terms]], grants: Mapping[str, tuple[str, ...]], account: str
) -> dict[str, Grant]:
    """Each entitlement is in force if one of the items that grant it is; its quantity is the sum over those items.

    It lasts until the last of them ends.
    """
    found: dict[str, Grant] = {}
    for item, reason, terms in sorted(items, key=lambda one: one[1]):  # items in force come first
        for name in granted_names(grants, item, account):
            known = found.get(name)
            if known is None:
                found[name] = Grant(item["quantity"], reason, terms)
            elif known.reason == reason:
                later = max(known.terms, terms, key=lambda one: one.until or 0)
                found[name] = Grant(add_quantities(known.quantity, item["quantity"]), reason, later)
    return dict(sorted(found.items()))
