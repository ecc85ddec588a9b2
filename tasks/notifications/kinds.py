"""The kinds of messages: the audience of each, the names its templates may use, and what decides about it.

A message is decided when it is sent. `decide` is `module:function`, a function of (attempt, db, notification) that
returns the Message as the stored facts (and with an API key Stripe) have it now, or None if it is not true any more.
Without `decide` a message is always true, and its values are the row's params.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pkgutil import resolve_name

from sqlalchemy.orm import Session

from tasks.handler import Attempt
from tasks.models import Notification
from tasks.notifications.localize import Value
from tasks.notifications.recipients import Recipient


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: the values of the names, and `template`, if it is not the one with the name of the kind.

    `to` is the customer as the stored facts have it; what it lacks is taken from the row.
    """

    values: Mapping[str, Value]
    template: str = ""
    to: Recipient = field(default_factory=Recipient)


Decide = Callable[[Attempt, Session, Notification], Message | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """`names`: those that its templates may use; `templates`: which it has besides one with its own name."""

    audience: str
    names: tuple[str, ...]
    decide: str = ""
    templates: tuple[str, ...] = ()


BUSINESS_NAMES = ("business", "support", "portal")  # in every message to a customer
DEBT = ("amount", "invoice", "link", "last4", "next_try", "last_day")
PAYMENT = "tasks.billing.messages"

KINDS: Mapping[str, Kind] = {
    "receipt": Kind(
        "customer", ("amount", "products", "order", "trial_end", "renewal"), "tasks.billing.order_messages:receipt"
    ),
    "order_payment_failed": Kind(
        "customer",
        ("amount", "order", "link"),
        "tasks.billing.order_messages:order_payment_failed",
        ("order_payment_open",),
    ),
    "payment_failed": Kind("customer", DEBT, f"{PAYMENT}:payment_failed", ("payment_failed_last", "invoice_overdue")),
    "payment_action_required": Kind("customer", DEBT, f"{PAYMENT}:payment_failed"),
    "subscription_suspended": Kind("customer", DEBT, f"{PAYMENT}:subscription_suspended"),
    "subscription_ended": Kind("customer", DEBT, f"{PAYMENT}:subscription_ended"),
    "payment_recovered": Kind(
        "customer",
        ("amount", "invoice", "open_invoices", "link"),
        f"{PAYMENT}:payment_recovered",
        ("payment_received", "payment_received_ended", "payment_received_owing"),
    ),
    "trial_will_end": Kind("customer", ("trial_end", "amount"), "tasks.billing.reminders:trial_will_end"),
    "renewal_reminder": Kind("customer", ("renewal", "amount"), "tasks.billing.reminders:renewal_reminder"),
    "document_ready": Kind("customer", ("document", "link"), "tasks.documents.announcements:document_ready"),
    "document_not_ready": Kind("customer", ("document",), "tasks.documents.announcements:document_not_ready"),
    "payment_given_up": Kind("admin", ("amount", "invoice", "customer", "subscription"), f"{PAYMENT}:payment_given_up"),
    "paid_after_end": Kind("admin", ("amount", "invoice", "customer", "subscription"), f"{PAYMENT}:paid_after_end"),
    "invoice_not_finalized": Kind("admin", ("invoice", "customer", "subscription", "reason")),
    "fraud_warning": Kind("admin", ("charge", "amount", "reason", "warning")),
    "dispute_opened": Kind(
        "admin", ("amount", "dispute", "charge", "reason", "status", "due"), "tasks.billing.disputes:still_open"
    ),
    "dispute_closed": Kind("admin", ("amount", "dispute", "charge", "reason", "status")),
    "refund_failed": Kind("admin", ("amount", "refund", "charge", "reason")),
    "payout_failed": Kind("admin", ("amount", "payout", "account", "reason")),
    "document_failed": Kind("admin", ("document", "id", "reason", "next")),
    "agent_disabled": Kind("admin", ("agent", "host", "id", "answer")),
    "handoff_failed": Kind("admin", ("agent", "host", "id", "answer", "document")),
    "app_not_told": Kind("admin", ("type", "answer")),
    "no_address": Kind("admin", ("message", "customer", "event")),
    "alert": Kind("operator", ("subject", "text")),
}


@cache
def decider(kind: str) -> Decide | None:
    """The function that decides about messages of this kind; None if they are always true."""
    path = KINDS[kind].decide if kind in KINDS else ""
    if not path:
        return None
    found: Decide = resolve_name(path)
    return found


def allowed_names() -> dict[str, set[str]]:
    """The names that each template may use."""
    allowed = {"footer": set(BUSINESS_NAMES)}
    for name, kind in KINDS.items():
        own = set(kind.names) | set(BUSINESS_NAMES if kind.audience == "customer" else ())
        allowed |= dict.fromkeys((name, *kind.templates), own)
    return allowed
