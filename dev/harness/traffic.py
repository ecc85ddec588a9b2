"""What the demo and the chaos runs send: pure, and the same for the same seed and time."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cli.stripe_events import NEW_VERSION, OLD_VERSION, checkout_session, customer, event, event_id, failed_invoice
from dev.harness.sender import DOCUMENT_REQUESTED, FLAWS, Delivery

DUPLICATES = 0.1
OUT_OF_ORDER = 0.2
EVENTS_PER_CUSTOMER = 5  # jobs of one customer never run at once, so these wait for one another
WITHOUT_ADDRESS = 4  # every fourth failed invoice has no address: the product has to ask Stripe for it
PAYS_AT = {"failed, pays at 1": 1, "failed, pays at 2": 2, "failed, never pays": 0}  # which retry pays the invoice
KINDS = {  # of a chaos run, in percent
    **{"failed, pays at 1": 20, "failed, pays at 2": 12, "failed, never pays": 8},
    **{"paid": 35, "unpaid": 5, "unhandled": 10, "document": 8, "broken document": 2},
}
DOCUMENT_BEHAVIOURS = ("", "twice-", "late-", "early-")  # see dev/simulators/document_service.py

DEMO_SEED = 7
DEMO_DUPLICATES = 60
BURST = 40
# A document for each behaviour of the simulator, and some without a fault.
DOCUMENTS = (
    *(f"report-{number}.pdf" for number in range(1, 5)),
    *("twice-1.pdf", "twice-2.pdf", "late-1.pdf", "busy-1.pdf"),
    *("busy-2.pdf", "big-1.pdf", "fails-1.pdf", "early-1.pdf", "flaky-1.pdf", "silent-1.pdf", "lost-1.pdf"),
    *("slow-1.pdf", "breaks-1.pdf", "moved-1.pdf", "forbidden-1.pdf"),
)
DEMO_DOCUMENT_KINDS = {
    **dict.fromkeys(("busy", "flaky", "lost"), "retried demo document"),
    **{"fails": "broken demo document", "forbidden": "forbidden document"},
}


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One event as its source knows it. `address` is the customer's e-mail, which no other event has."""

    id: str
    kind: str  # one of the kinds that dev/harness/checker.py knows
    subject: str  # the invoice, the checkout session, the document
    address: str
    customer: str = ""
    thing: dict[str, Any] = field(default_factory=dict)  # the Stripe object, if it is one of Stripe's


@dataclass(slots=True)
class Traffic:
    """Every event, and the deliveries of them in the order in which they start."""

    events: dict[str, ShopEvent] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    burst: list[Delivery] = field(default_factory=list)  # of the demo: failed payments, sent all at once
    documents: list[Delivery] = field(default_factory=list)  # of the demo: sent beside the others

    def add(self, number: int, kind: str, now: int, version: str = NEW_VERSION, **changes: Any) -> None:
        """An event of Stripe's at this time. `changes` are to its object, whose customer's address goes by number."""
        address = f"customer-{number}@example.test"
        event_type, thing = _stripe_object(number, kind, address, now, version)
        thing |= changes
        body = event(number, event_type, thing, thing["created"], version)
        made = ShopEvent(event_id(number), kind, thing["id"], address, str(thing.get("customer")), thing)
        self._add(made, body, event_type)

    def add_document(self, name: str, kind: str, address: str, agents: Sequence[str] = ()) -> None:
        """A call of our API. The document's name is its Idempotency-Key too, and chooses the service's behaviour."""
        notify = {"email": address} | ({"agents": agents} if agents else {})
        request = {"document_id": name, "options": {"ocr": True}, "notify": notify}
        self._add(ShopEvent(name, kind, name, address), json.dumps(request).encode(), DOCUMENT_REQUESTED)

    def _add(self, made: ShopEvent, body: bytes, event_type: str) -> None:
        self.events[made.id] = made
        self.deliveries.append(Delivery(made.id, event_type, body))

    def insert(self, dice: random.Random, *together: Delivery) -> None:
        """Put deliveries at a random place among the others, in this order."""
        at = dice.randrange(len(self.deliveries))
        self.deliveries[at:at] = together


def _stripe_object(number: int, kind: str, address: str, now: int, version: str) -> tuple[str, dict[str, Any]]:
    """The type of an event of this kind, and the object that it is about."""
    if kind == "unhandled":
        return "customer.created", customer(number, address, now)
    if kind in ("paid", "unpaid"):
        paid = kind == "paid"
        return "checkout.session.completed", checkout_session(number, address, paid=paid, created=now, version=version)
    plan = {"next_payment_attempt": None}  # this shop has switched Stripe's retries off, in favour of ours
    return "invoice.payment_failed", failed_invoice(number, address, 1, now, version) | plan


def make_traffic(seed: int, count: int, now: int) -> Traffic:
    """The traffic of a chaos run; `now` is the time of the events, in seconds since 1970."""
    traffic, dice = Traffic(), random.Random(f"traffic {seed}")
    customers = 1 + count // EVENTS_PER_CUSTOMER
    for number, kind in enumerate(dice.choices(list(KINDS), list(KINDS.values()), k=count), 1):
        if "document" in kind:
            behaviour = (
                "fails-" if kind == "broken document" else DOCUMENT_BEHAVIOURS[number % len(DOCUMENT_BEHAVIOURS)]
            )
            traffic.add_document(f"{behaviour}document-{number}", kind, f"customer-{number}@example.test")
        elif kind in PAYS_AT and number % WITHOUT_ADDRESS == 0:  # such an event keeps a customer of its own
            traffic.add(number, kind, now, customer_email=None)
        else:
            traffic.add(number, kind, now, customer=f"cus_Chaos{number % customers}")
    deliveries = list(traffic.deliveries)
    for _ in range(int(count * OUT_OF_ORDER)):
        one, other = dice.sample(range(count), 2)
        deliveries[one], deliveries[other] = deliveries[other], deliveries[one]
    traffic.deliveries = deliveries
    for again in dice.sample(deliveries, int(count * DUPLICATES)):
        traffic.insert(dice, again)
    return traffic


def make_demo_traffic(now: int, agents: Mapping[str, Sequence[str]]) -> Traffic:
    """The demo's traffic. `now` is the time of the newest events, in seconds since 1970; `agents` get handoffs, by
    document."""
    traffic, dice, numbers = Traffic(), random.Random(DEMO_SEED), itertools.count(1)
    for name in DOCUMENTS:
        kind = DEMO_DOCUMENT_KINDS.get(name.partition("-")[0], "demo document")
        traffic.add_document(name, kind, f"{name.removesuffix('.pdf')}@example.test", agents.get(name, ()))
    traffic.documents, traffic.deliveries = traffic.deliveries, []
    for number in itertools.islice(numbers, 80 + BURST):
        traffic.add(number, "failed", now, OLD_VERSION if number % 2 else NEW_VERSION)
    dice.shuffle(traffic.deliveries)
    traffic.burst, traffic.deliveries = traffic.deliveries[:BURST], traffic.deliveries[BURST:]
    for number in itertools.islice(numbers, 100):
        traffic.add(number, "paid" if number % 5 else "unpaid", now)
    for number in itertools.islice(numbers, 60):
        traffic.add(number, "unhandled", now)
    dice.shuffle(traffic.deliveries)
    for number in itertools.islice(numbers, 10):
        _add_reversed(traffic, dice, number, next(numbers), now)
    for again in dice.sample(traffic.deliveries + traffic.burst, DEMO_DUPLICATES):
        traffic.insert(dice, again)
    for number, flaw in zip(numbers, FLAWS * 4, strict=False):
        traffic.add(number, "forged", now)  # a new event, so that an effect of it would be seen
        traffic.insert(dice, replace(traffic.deliveries.pop(), flaw=flaw))
    return traffic


def _add_reversed(traffic: Traffic, dice: random.Random, first: int, second: int, now: int) -> None:
    """Two failures of one invoice, a day apart, the later one sent first."""
    traffic.add(second, "failed", now, attempt_count=2)
    newer = traffic.deliveries.pop()
    same = {name: traffic.events[newer.event_id].thing[name] for name in ("id", "customer", "parent")}
    traffic.add(first, "failed earlier", now, created=now - 86400, **same)
    traffic.insert(dice, newer, traffic.deliveries.pop())
