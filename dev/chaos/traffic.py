"""What is sent: events as a shop has them, some twice, some out of order. Pure, and the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dev.sender import Delivery
from dev.stripe_events import NEW_VERSION, checkout_session, customer, event, event_id, failed_invoice

DUPLICATES = 0.1
OUT_OF_ORDER = 0.2
EVENTS_PER_CUSTOMER = 5  # jobs of one customer never run at once, so these wait for one another
KINDS = {"failed": 50, "paid": 35, "unpaid": 5, "unhandled": 10}


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as its sender knows it. `address` is the customer's e-mail, which no other event has."""

    id: str
    kind: str  # one of KINDS
    subject: str  # the invoice, the checkout session
    address: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Every event, and the deliveries of them in the order in which they are begun."""

    events: dict[str, Sent]
    deliveries: list[Delivery]


def make_traffic(seed: int, count: int, now: int) -> Traffic:
    """`now` is the time of the events, in seconds since 1970."""
    dice = random.Random(f"traffic {seed}")
    drawn = dice.choices(list(KINDS), list(KINDS.values()), k=count)
    made = [_make(number, kind, 1 + count // EVENTS_PER_CUSTOMER, now) for number, kind in enumerate(drawn, 1)]
    deliveries = [delivery for _, delivery in made]
    for _ in range(int(count * OUT_OF_ORDER)):
        one, other = sorted(dice.sample(range(count), 2))
        deliveries[one], deliveries[other] = deliveries[other], deliveries[one]
    for again in dice.sample(deliveries, int(count * DUPLICATES)):
        deliveries.insert(dice.randrange(len(deliveries)), again)
    return Traffic({sent.id: sent for sent, _ in made}, deliveries)


def _make(number: int, kind: str, customers: int, now: int) -> tuple[Sent, Delivery]:
    address = f"{kind}-{number}@example.test"
    event_type, thing = _thing(number, kind, address, now)
    thing |= {"customer": f"cus_Chaos{number % customers}"}
    sent = Sent(event_id(number), kind, thing["id"], address)
    return sent, Delivery(sent.id, event_type, event(number, event_type, thing, now))


def _thing(number: int, kind: str, address: str, now: int) -> tuple[str, dict[str, Any]]:
    if kind == "failed":
        return "invoice.payment_failed", failed_invoice(number, address, 1, now, NEW_VERSION)
    if kind == "unhandled":
        return "customer.updated", customer(number, address, now)
    return "checkout.session.completed", checkout_session(number, address, paid=kind == "paid", created=now)
