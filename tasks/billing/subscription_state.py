"""What the facts about a subscription and its invoices add up to: pure decisions, in no order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# How far along a state is: of two events of one second, the one further along is the newer.
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
FINAL = frozenset({"canceled", "incomplete_expired", "void", "paid"})  # Stripe takes none of these back
SETTLED = frozenset({"paid", "void", "uncollectible"})  # invoices that nobody tries to collect any more
SUSPENDED = "suspended"  # our own word: given up after the grace time
SIGN_UP = frozenset(
    {"incomplete", "incomplete_expired"}
)  # the first payment has not come: the customer is at the checkout
# A card that was declined so is declined again, or as long as its owner is not there to confirm. After the first nine
# Stripe too waits for another card: https://docs.stripe.com/billing/revenue-recovery/smart-retries
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
        "fraudulent",  # and these by https://docs.stripe.com/declines/codes
        "do_not_try_again",
        "stop_payment_order",
    }
)
COLLECTING = (None, "active", "trialing", "past_due", "unpaid")  # what an open failed invoice makes past_due


@dataclass(frozen=True, slots=True)
class Version:
    """A state, and where it was seen: in an event, or, `fetched`, at Stripe itself. `at`: seconds since 1970."""

    state: str
    at: int
    event: str
    fetched: bool = False


def is_newer(new: Version, old: Version | None, way: Sequence[str]) -> bool:
    """Does `new` replace `old`? Of events the same one wins in any order; what was fetched replaces all before it."""
    if old is None:
        return True
    if new.fetched:
        return new.at >= old.at
    return _rank(new, way) > _rank(old, way)


def _rank(seen: Version, way: Sequence[str]) -> tuple[bool, int, int, str]:
    along = way.index(seen.state) if seen.state in way else -1
    return (seen.state in FINAL, seen.at, along, seen.event)


def is_sign_up(word: str | None, billing_reason: str | None, *, sent: bool) -> bool:
    """Is an unpaid invoice the first of a subscription that has not begun? `word` is Stripe's for that, if it is known.

    Its customer is asked at the checkout, and Stripe tries no second time: after 23 hours the subscription expires.
    One that is `sent` begins at once. https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
    """
    return word in SIGN_UP or (word is None and billing_reason == "subscription_create" and not sent)


def derive_status(word: str | None, *, failing: bool, given_up: bool, paid_since: bool) -> str:
    """A subscription's status.

    `word` is Stripe's (None: not known); `failing`: an invoice failed, and is open or written off; `given_up`: its
    grace time is over; `paid_since`: an invoice was paid after Stripe's word.
    """
    if word in FINAL:
        return str(word)
    if given_up:
        return SUSPENDED
    if failing and word in COLLECTING:
        return "past_due"
    return "active" if word is None or (word == "past_due" and paid_since) else word


def should_start_grace(schedule: Sequence[int], retry: tuple[int, str] | None, stripes_last_word: bool) -> bool:
    """Has a failing invoice been tried for the last time? `retry` is its newest one of ours: (number, state).

    Without a schedule Stripe tries, and its last word counts.
    """
    if not schedule:
        return stripes_last_word
    return retry is not None and retry[1] == "declined" and retry[0] >= len(schedule)


def next_retry_number(schedule: Sequence[int], retry: tuple[int, str] | None) -> int | None:
    """The number of the retry to plan now for a failing invoice, 1 for the first; None: not now, or no more."""
    number = 1 if retry is None else retry[0] + 1 if retry[1] == "declined" else None
    return number if number is not None and number <= len(schedule) else None
