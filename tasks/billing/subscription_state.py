"""Pure functions that compute a subscription's state from stored facts, independent of arrival order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# States by progress: of two events created in the same second, the one with the later state is the newer.
# https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
# https://docs.stripe.com/invoicing/overview#invoice-statuses
SUBSCRIPTION_ORDER = (
    "incomplete",
    "trialing",
    "active",
    "past_due",
    "paused",
    "unpaid",
    "incomplete_expired",
    "canceled",
)
INVOICE_ORDER = ("open", "uncollectible", "void", "paid")
FINAL = frozenset({"canceled", "incomplete_expired", "void", "paid"})  # Stripe never leaves these states
SETTLED = frozenset({"paid", "void", "uncollectible"})  # invoices that are not collected any more
SUSPENDED = "suspended"  # our own status: unpaid after the grace period
SIGN_UP = frozenset(
    {"incomplete", "incomplete_expired"}
)  # the first payment is missing: the customer is at the checkout
IN_ORDER = frozenset({"active", "trialing"})  # as Stripe sees it, no debt of this subscription is overdue
# Statuses that an unpaid invoice turns into past_due, and into suspended after its grace period.
COLLECTING = (None, "active", "trialing", "past_due", "unpaid")
# Billing reasons of invoices that a subscription generates itself. Only these decide its status; an invoice that a
# person adds (`manual`) does not. None: not included, in events of old API versions.
# https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason
OWN_REASONS = frozenset(
    {
        *(None, "subscription", "subscription_create", "subscription_cycle", "subscription_update"),
        *("subscription_threshold", "quote_accept"),
    }
)


@dataclass(frozen=True, slots=True)
class Version:
    """A state of an object at a time (`at`, seconds since 1970), from an event or `fetched` from Stripe's API."""

    state: str
    at: int
    event: str
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Debt:
    """An unpaid invoice of a subscription's own, newer than its last paid period.

    `failed_at` is its newest failure (seconds since 1970); `given_up`: its grace period is over.
    """

    failed_at: int
    given_up: bool = False


def is_newer(new: Version, old: Version | None, order: Sequence[str]) -> bool:
    """Whether `new` replaces `old`.

    A fetched version replaces all that are not newer than its time; a fetched final state replaces any. Versions from
    events are ranked, so that the same one wins in any order of arrival: final states first, then event time, then
    progress, then event id. Stripe does not guarantee the order of events:
    https://docs.stripe.com/webhooks#event-ordering
    """
    if old is None:
        return True
    if new.fetched:
        return new.state in FINAL or new.at >= old.at
    return _rank(new, order) > _rank(old, order)


def _rank(version: Version, order: Sequence[str]) -> tuple[bool, int, int, str]:
    progress = order.index(version.state) if version.state in order else -1
    return (version.state in FINAL, version.at, progress, version.event)


def is_sign_up(stripe_status: str | None, billing_reason: str | None, *, sent: bool) -> bool:
    """Whether an unpaid invoice is the first of a subscription that has not started, so that no dunning is needed.

    `stripe_status` is the subscription's, None if not known. Stripe does not retry the first payment: the customer pays
    at the checkout, or the subscription expires after 23 hours. A `sent` invoice's subscription starts at once.
    https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
    """
    return stripe_status in SIGN_UP or (stripe_status is None and billing_reason == "subscription_create" and not sent)


def is_outweighed(stripe_status: str | None, observed_at: int, failed_at: int) -> bool:
    """Whether Stripe has seen the subscription in order at or after an invoice's newest failure.

    Then the invoice withholds nothing: it was forgiven, or a change that it was for did not happen.
    """
    return stripe_status in IN_ORDER and observed_at >= failed_at


def derive_status(stripe_status: str | None, observed_at: int, debts: Sequence[Debt], *, paid_since: bool) -> str:
    """Our status of a subscription. Stripe's is authoritative; ours adds what it does not have: the grace period.

    Stripe's status was `observed_at` (seconds since 1970); None if not known. An unpaid invoice that failed after that
    makes it past_due, and suspended once its grace period is over. `paid_since`: an invoice was paid after that.
    """
    current = [debt for debt in debts if not is_outweighed(stripe_status, observed_at, debt.failed_at)]
    if stripe_status not in COLLECTING:
        return str(stripe_status)
    if any(debt.given_up for debt in current):
        return SUSPENDED
    if current:
        return "past_due"
    return "active" if stripe_status is None or (stripe_status == "past_due" and paid_since) else stripe_status
