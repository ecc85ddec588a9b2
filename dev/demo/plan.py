"""What the demo sends: the same in every run, but for the clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import Any

from cli.stripe_events import NEW_VERSION, OLD_VERSION, checkout_session, customer, event, event_id, failed_invoice
from dev.harness.sender import FLAWS, Delivery
from dev.simulators.document_behaviour import FAIL

SEED = 7
DUPLICATES = 60
BURST = 40
UNHANDLED = ("customer.created", "customer.updated")

# A document for each behaviour of the simulator (document_behaviour.py), and some without a fault.

DOCUMENTS = (
    *(f"report-{number}.pdf" for number in range(1, 5)),
    *("twice-1.pdf", "twice-2.pdf", "late-1.pdf", "busy-1.pdf"),
    *("busy-2.pdf", "big-1.pdf", "fails-1.pdf", "early-1.pdf", "flaky-1.pdf", "silent-1.pdf", "lost-1.pdf"),
    *("slow-1.pdf", "breaks-1.pdf", "moved-1.pdf", "forbidden-1.pdf"),
)


def should_end(document_id: str) -> str:
    """How this document has to end."""
    return "failed" if document_id.startswith(FAIL) else "completed"


@dataclass(slots=True)
class Plan:
    """The deliveries in their order, and what must have become of each event."""

    deliveries: list[Delivery] = field(default_factory=list)
    burst: list[Delivery] = field(default_factory=list)  # failed payments, sent at once when a worker is to be killed
    newest: dict[str, str] = field(default_factory=dict)  # invoice -> its newest failure: the one that must be mailed
    failures: set[str] = field(default_factory=set)
    paid: dict[str, str] = field(default_factory=dict)  # checkout: event id -> session
    unpaid: dict[str, str] = field(default_factory=dict)
    unhandled: set[str] = field(default_factory=set)
    flawed: set[str] = field(default_factory=set)  # must have no effect at all
    reordered: int = 0

    def add(self, number: int, kind: str, thing: dict[str, Any]) -> None:
        """One more delivery: an event of this type about `thing`, in the API version that `thing` is made for."""
        version = OLD_VERSION if kind.startswith("invoice.") and "parent" not in thing else NEW_VERSION
        body = event(number, kind, thing, thing["created"], version)
        self.deliveries.append(Delivery(event_id(number), kind, body))

    def insert(self, dice: random.Random, *together: Delivery) -> None:
        """Put deliveries somewhere among the others, in this order."""
        place = dice.randrange(len(self.deliveries))
        self.deliveries[place:place] = together


def make_plan(now: int) -> Plan:
    """`now` is the time of the newest events, in seconds since 1970."""
    plan, dice = Plan(), random.Random(SEED)
    numbers = itertools.count(1)
    for number in itertools.islice(numbers, 80 + BURST):
        _add_failure(plan, number, now, OLD_VERSION if number % 2 else NEW_VERSION)
    dice.shuffle(plan.deliveries)
    plan.burst, plan.deliveries = plan.deliveries[:BURST], plan.deliveries[BURST:]
    for number in itertools.islice(numbers, 100):
        _add_checkout(plan, number, now, paid=number % 5 != 0)
    for number in itertools.islice(numbers, 60):
        _add_unhandled(plan, number, now)
    dice.shuffle(plan.deliveries)
    for number in itertools.islice(numbers, 10):
        _add_reversed(plan, dice, number, next(numbers), now)
    for delivery in dice.sample(plan.deliveries + plan.burst, DUPLICATES):
        plan.insert(dice, delivery)
    for number, flaw in zip(numbers, FLAWS * 4, strict=False):
        _add_flawed(plan, dice, number, flaw, now)
    return plan


def _add_failure(plan: Plan, number: int, now: int, version: str) -> None:
    invoice = failed_invoice(number, f"payer-{number}@example.test", 1, now, version)
    plan.add(number, "invoice.payment_failed", invoice)
    plan.failures.add(event_id(number))
    plan.newest[invoice["id"]] = event_id(number)


def _add_reversed(plan: Plan, dice: random.Random, first: int, second: int, now: int) -> None:
    """Two failures of one invoice, a day apart, the later one sent first."""
    invoice = failed_invoice(first, f"payer-{first}@example.test", 1, now, NEW_VERSION)
    plan.add(second, "invoice.payment_failed", invoice | {"attempt_count": 2})
    plan.add(first, "invoice.payment_failed", invoice | {"created": now - 86400})
    older, newer = plan.deliveries.pop(), plan.deliveries.pop()
    plan.insert(dice, newer, older)
    plan.failures |= {event_id(first), event_id(second)}
    plan.newest[invoice["id"]] = event_id(second)
    plan.reordered += 1


def _add_checkout(plan: Plan, number: int, now: int, *, paid: bool) -> None:
    session = checkout_session(number, f"buyer-{number}@example.test", paid=paid, created=now)
    plan.add(number, "checkout.session.completed", session)
    (plan.paid if paid else plan.unpaid)[event_id(number)] = session["id"]


def _add_unhandled(plan: Plan, number: int, now: int) -> None:
    plan.add(number, UNHANDLED[number % len(UNHANDLED)], customer(number, f"visitor-{number}@example.test", now))
    plan.unhandled.add(event_id(number))


def _add_flawed(plan: Plan, dice: random.Random, number: int, flaw: str, now: int) -> None:
    """An event of its own, so that an effect of it would be seen."""
    plan.add(number, "invoice.payment_failed", failed_invoice(number, "mallory@example.test", 1, now, NEW_VERSION))
    plan.insert(dice, replace(plan.deliveries.pop(), flaw=flaw))
    plan.flawed.add(event_id(number))
