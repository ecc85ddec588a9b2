"""Pure functions that compute subscription and dunning state from stored facts, independent of arrival order."""

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
# Declines that a retry of the same card cannot change. After the first nine codes Stripe does not retry either until
# there is another card: https://docs.stripe.com/billing/revenue-recovery/smart-retries
HARD_DECLINES = frozenset(
    {
        "incorrect_number",
        "lost_card",
        "pickup_card",
        "stolen_card",
        "revocation_of_authorization",
        "revocation_of_all_authorizations",
        "highest_risk_level",
        "transaction_not_allowed",
        "authentication_required",
        "fraudulent",  # from here on: https://docs.stripe.com/declines/codes
        "do_not_try_again",
        "stop_payment_order",
    }
)
# Statuses that a failed open invoice turns into past_due.
COLLECTING = (None, "active", "trialing", "past_due", "unpaid")


@dataclass(frozen=True, slots=True)
class Version:
    """A state of an object at a time (`at`, seconds since 1970), from an event or `fetched` from Stripe's API."""

    state: str
    at: int
    event: str
    fetched: bool = False


def is_newer(new: Version, old: Version | None, order: Sequence[str]) -> bool:
    """Whether `new` replaces `old`.

    A fetched version replaces all that are not newer than its time. Versions from events are ranked, so that the same
    one wins in any order of arrival: final states first, then event time, then progress, then event id. Stripe does not
    guarantee the order of events: https://docs.stripe.com/webhooks#event-ordering
    """
    if old is None:
        return True
    if new.fetched:
        return new.at >= old.at
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


def derive_status(stripe_status: str | None, *, failing: bool, given_up: bool, paid_since: bool) -> str:
    """Our status of a subscription. The rule is ours, on top of Stripe's statuses (see SUBSCRIPTION_ORDER).

    A final Stripe status stays. Otherwise a subscription is suspended once a failed invoice's grace period is over, and
    past_due while an invoice is failing; else it has Stripe's status.

    `stripe_status`: None if not known. `failing`: an invoice failed, and is open or uncollectible. `given_up`: the
    grace period of such an invoice is over. `paid_since`: an invoice was paid after `stripe_status` was observed.
    """
    if stripe_status in FINAL:
        return str(stripe_status)
    if given_up:
        return SUSPENDED
    if failing and stripe_status in COLLECTING:
        return "past_due"
    return "active" if stripe_status is None or (stripe_status == "past_due" and paid_since) else stripe_status


def should_start_grace(schedule: Sequence[int], retry: tuple[int, str] | None, stripe_is_done: bool) -> bool:
    """Whether the grace period of a failing invoice starts: after the last retry of our schedule was declined.

    `retry` is its newest retry: (number, state), None if there is none. Without a schedule Stripe retries, and the
    grace period starts when it will not any more (`stripe_is_done`).
    """
    if not schedule:
        return stripe_is_done
    return retry is not None and retry[1] == "declined" and retry[0] >= len(schedule)


def next_retry_number(schedule: Sequence[int], retry: tuple[int, str] | None) -> int | None:
    """The number of the retry to plan now for a failing invoice, 1 for the first; None if none is to be planned.

    The next one is planned when the last, `retry` (number, state), was declined, until `schedule` is used up.
    """
    number = 1 if retry is None else retry[0] + 1 if retry[1] == "declined" else None
    return number if number is not None and number <= len(schedule) else None
