"""Histories of a subscription: its events, and the state they must end in, whatever their order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.lives import T0, Happened, checkout, dispute, invoice, item, refund, subscription

CANCELLED = (
    subscription("created", 1, 0, "trialing"),
    subscription("trial_will_end", 2, 5, "trialing"),
    subscription("updated", 3, 10, "active"),
    invoice("payment_failed", 4, 10),
    invoice("payment_action_required", 5, 10),
    subscription("updated", 6, 11, "past_due"),
    invoice("payment_failed", 7, 20, attempt_count=2, next_payment_attempt=None),
    invoice("paid", 8, 30, next_payment_attempt=None),
    invoice("payment_succeeded", 9, 30, next_payment_attempt=None),
    subscription("updated", 10, 30, "active"),
    invoice("payment_failed", 11, 40, id="in_2", next_payment_attempt=None),
    subscription("deleted", 12, 50, "canceled"),
)
SENT: dict[str, Any] = {"collection_method": "send_invoice", "next_payment_attempt": None}
FORGIVEN = {"status": "uncollectible", "status_details": {"uncollectible": {"reason": "user_forgiven"}}}
GIVEN_UP_AND_RENEWED = (
    subscription("created", 1, 0, "active"),
    invoice("payment_failed", 2, 10, next_payment_attempt=None),
    subscription("updated", 3, 11, "past_due"),
    invoice("paid", 4, 40, id="in_2", created=T0 + 39, next_payment_attempt=None),
    subscription("updated", 5, 41, "active"),
)
BOUGHT = checkout("completed", 100, 1)
FROM_ITEMS = {"metadata": {}, "line_items": {"object": "list", "data": [item("item", "basic")], "has_more": False}}
MOVED = (
    subscription("created", 1, 0, "active", "basic"),
    subscription("updated", 2, 10, "active", "pro"),
    invoice("paid", 3, 20, next_payment_attempt=None),
    subscription("updated", 4, 30, "active", "max"),
)


@dataclass(frozen=True, slots=True)
class Life:
    """What happened, the status that it ends in, that after every grace time that is planned then, and what is in
    force as far as the status gives it."""

    events: tuple[Happened, ...]
    status: str
    in_the_end: str = ""  # the same, if empty
    gives: tuple[str, ...] = ("club",)

    def given(self, status: str) -> tuple[str, ...]:
        return self.gives if status in ("active", "past_due") else ()


def bought(events: Sequence[Happened], status: str, in_the_end: str = "", gives: tuple[str, ...] = ("club",)) -> Life:
    """A paid checkout, and the events after it."""
    return Life((BOUGHT, *events), status, in_the_end, gives)


LIVES: dict[str, Life] = {
    "cancelled at last": bought(CANCELLED, "canceled"),
    "paid after two failures": bought(CANCELLED[:10], "active"),
    "paid, and Stripe has not said active yet": bought(CANCELLED[:9], "active"),
    "past due, its grace running": bought(CANCELLED[:7], "past_due", "suspended"),
    "another invoice failed since": bought(
        (*CANCELLED[:11], subscription("updated", 13, 41, "past_due")), "past_due", "suspended"
    ),
    "only its invoices known": bought(tuple(e for e in CANCELLED[:8] if e.type.startswith("invoice")), "active"),
    "unpaid by Stripe's own word": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10),
            subscription("updated", 3, 20, "unpaid"),
        ),
        "past_due",
        "suspended",
    ),
    "written off": bought(
        (*GIVEN_UP_AND_RENEWED[:3], invoice("marked_uncollectible", 6, 20, next_payment_attempt=None)),
        "past_due",
        "suspended",
    ),
    "written off, and in order for Stripe": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, next_payment_attempt=None),
            invoice("marked_uncollectible", 3, 20, next_payment_attempt=None),
            subscription("paused", 4, 21, "paused"),
            subscription("resumed", 5, 30, "active"),
        ),
        "active",
    ),
    "forgiven, and Stripe says nothing of the subscription": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, next_payment_attempt=None),
            invoice("marked_uncollectible", 3, 20, next_payment_attempt=None, **FORGIVEN),
        ),
        "active",
    ),
    "a one-off invoice of a paid plan never paid": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 3, 2, billing_reason="subscription_create", next_payment_attempt=None),
            invoice("payment_failed", 5, 30, id="in_2", billing_reason="manual", next_payment_attempt=None),
        ),
        "active",
    ),
    "given up, and the next period free by a coupon": bought(
        (
            *GIVEN_UP_AND_RENEWED[:3],
            invoice("paid", 4, 40, id="in_2", created=T0 + 39, total=0, billing_reason="subscription_cycle"),
            subscription("updated", 5, 41, "active"),
        ),
        "active",
    ),
    "written off, and renewed since": bought(
        (*GIVEN_UP_AND_RENEWED, invoice("marked_uncollectible", 6, 20)),
        "active",
    ),
    "written off, and paid after all": bought(
        (
            *GIVEN_UP_AND_RENEWED[:3],
            invoice("marked_uncollectible", 6, 20),
            invoice("paid", 7, 30),
            subscription("updated", 8, 31, "active"),
        ),
        "active",
    ),
    "written off, and nobody had failed to pay": bought(
        (subscription("created", 1, 0, "active"), invoice("marked_uncollectible", 2, 20)),
        "active",
    ),
    "refunded, and renewed since": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 20, made=1, invoice="in_1"),
            invoice("payment_failed", 4, 30, id="in_2", created=T0 + 29),
            invoice("paid", 5, 40, id="in_2", created=T0 + 29, next_payment_attempt=None),
        ),
        "active",
    ),
    "a dispute lost, and renewed since": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 15, made=1, invoice="in_1", amount_refunded=5, refunded=False),
            dispute("created", 4, 20, "needs_response"),
            dispute("closed", 5, 30, "lost"),
            invoice("paid", 6, 40, id="in_2", created=T0 + 39, next_payment_attempt=None),
        ),
        "active",
    ),
    "never paid, and a newer invoice paid": bought(GIVEN_UP_AND_RENEWED, "active"),
    "the newest never paid, and an older one paid late": bought(
        (
            *GIVEN_UP_AND_RENEWED[:4],
            invoice("payment_failed", 6, 60, id="in_3", created=T0 + 59, next_payment_attempt=None),
            invoice("paid", 7, 70, next_payment_attempt=None),
        ),
        "past_due",
        "suspended",
    ),
    "never paid, and a newer invoice of nothing": bought(
        (*GIVEN_UP_AND_RENEWED[:3], invoice("paid", 4, 40, id="in_2", created=T0 + 39, amount_due=0, total=0)),
        "past_due",
        "suspended",
    ),
    "a sign-up that was never paid": bought(
        (
            invoice("payment_failed", 1, 10, billing_reason="subscription_create"),
            subscription("created", 2, 10, "incomplete"),
            invoice("payment_action_required", 3, 20, billing_reason="subscription_create"),
            subscription("updated", 4, 90_000, "incomplete_expired"),
            invoice("voided", 5, 90_000, billing_reason="subscription_create"),
        ),
        "incomplete_expired",
    ),
    "a sign-up of which only the invoice is known": bought(
        (invoice("payment_failed", 1, 10, billing_reason="subscription_create", next_payment_attempt=None),),
        "incomplete",
    ),
    "sent to be paid by hand, and not yet due": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, **SENT, due_date=None),
        ),
        "active",
    ),
    "sent to be paid by hand, and never paid": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("payment_failed", 2, 10, **SENT, due_date=T0 + 30 * 86400),
        ),
        "active",
        "suspended",
    ),
    "refunded, and a difference paid since": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 20, made=1, invoice="in_1"),
            invoice("paid", 4, 40, id="in_2", created=T0 + 39, billing_reason="subscription_update"),
        ),
        "active",
        gives=(),
    ),
    "void": bought(
        (invoice("payment_failed", 1, 10, next_payment_attempt=None), invoice("voided", 2, 10)),
        "active",
    ),
    "refunded": bought(
        (
            subscription("created", 1, 0, "active"),
            invoice("paid", 2, 1, next_payment_attempt=None),
            refund(3, 20, made=1, invoice="in_1"),
        ),
        "active",
        gives=(),
    ),
    "paid for by a transfer that takes days": Life(
        (
            checkout("completed", 100, 1, payment_status="unpaid"),
            checkout("async_payment_succeeded", 101, 50),
            *CANCELLED[:10],
        ),
        "active",
    ),
    "a transfer that never came": Life(
        (
            checkout("completed", 100, 1, payment_status="unpaid"),
            checkout("async_payment_failed", 101, 50, payment_status="unpaid"),
            subscription("created", 1, 0, "incomplete"),
            subscription("updated", 2, 60, "incomplete_expired"),
        ),
        "incomplete_expired",
        gives=(),
    ),
    "moved from plan to plan": Life((checkout("completed", 100, 1, **FROM_ITEMS), *MOVED), "active", gives=("max",)),
    "moved, and nobody told what was bought": Life(
        (checkout("completed", 100, 1, metadata={}), *MOVED), "active", gives=("max",)
    ),
    "moved, and the shop itself named what it sold": bought(MOVED, "active"),
}
