"""Pure functions that compute how a failing invoice is collected: by Stripe, by a retry of ours, or not any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

# Declines that a retry of the same payment method cannot change. After the first nine codes Stripe does not retry
# either until there is another card: https://docs.stripe.com/billing/revenue-recovery/smart-retries
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
        "account_closed",  # from here on bank debits that need a new mandate or other account details:
        "bank_account_closed",  # https://docs.stripe.com/declines/network-codes
        "bank_account_frozen",
        "bank_account_invalid_details",
        "bank_account_restricted",
        "bank_account_unusable",
        "debit_not_authorized",
        "mandate_invalid",
        "no_account",
        "payment_method_bank_account_blocked",
        "recipient_deceased",
    }
)
# https://docs.stripe.com/payments/bank-debits
BANK_DEBITS = frozenset(
    {"acss_debit", "au_becs_debit", "bacs_debit", "bank_account", "nz_bank_account", "sepa_debit", "us_bank_account"}
)
MAX_DEBITS = 2  # retries of a bank debit: each one returned costs a fee, and networks limit them
DEBIT_INTERVAL_SECONDS = 2 * 86400
IN_FLIGHT = ("planned", "pending")  # states of a retry without an outcome


class Step(Enum):
    """What follows for a failing invoice."""

    RETRY = auto()  # plan the next retry of our schedule
    GRACE = auto()  # no further attempt follows: the grace period starts
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """What is known about the collection of a failing invoice.

    `retries`: the states of the retries of our schedule, the oldest first. `in_flight`: one of ours has no outcome yet.
    """

    written_off: bool = False  # uncollectible
    sent: bool = False  # the customer pays it by hand
    stripe_will_try: bool = False  # Stripe has planned an attempt
    stripe_is_done: bool = False  # Stripe plans no attempt; for a sent invoice: it has a due date
    held: bool = False  # automatic collection is off, or it is for an update that the customer may still give up
    retries: Sequence[str] = ()
    in_flight: bool = False


def next_step(schedule: Sequence[int], known: CollectionFacts) -> Step:
    """What follows now. Our `schedule` yields to Stripe's own attempts, and to a person who switched collection off.

    The grace period starts when neither Stripe nor our schedule has an attempt left.
    """
    if known.written_off or known.sent:
        return Step.GRACE if known.written_off or known.stripe_is_done else Step.WAIT
    if known.in_flight or known.stripe_will_try:
        return Step.WAIT
    if schedule and not known.held and declined(known.retries) < len(schedule):
        return Step.RETRY if not known.retries or known.retries[-1] in ("declined", "cancelled") else Step.WAIT
    is_used_up = bool(schedule) and declined(known.retries) >= len(schedule)
    return Step.GRACE if known.stripe_is_done or is_used_up else Step.WAIT


def will_try(next_try: int | None, now: float) -> bool:
    """Whether Stripe still makes this attempt; `next_try` is its time, None if there is none (seconds since 1970).

    An attempt that was due more than a day ago has been made, and its event was lost.
    """
    return next_try is not None and next_try > now - 86400


def declined(retries: Sequence[str]) -> int:
    """How many days of the schedule are over. A cancelled retry was not made, so its day comes again."""
    return sum(state == "declined" for state in retries)


def may_debit_again(debits: int, seconds_since_last: float) -> bool:
    """Whether a bank account may be debited again after so many retries of ours, and so long after the last failure."""
    return debits < MAX_DEBITS and seconds_since_last >= DEBIT_INTERVAL_SECONDS
