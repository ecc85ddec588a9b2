"""What is sent: events as a shop has them, some twice, some out of order. Pure, and the same for the same seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from cli.stripe_events import NEW_VERSION, checkout_session, customer, event, event_id, failed_invoice
from dev.harness.sender import Delivery

DUPLICATES = 0.1
OUT_OF_ORDER = 0.2
EVENTS_PER_CUSTOMER = 5  # jobs of one customer never run at once, so these wait for one another
WITHOUT_ADDRESS = 4  # every fourth failed invoice: we have to ask Stripe for the customer's
DOCUMENT_REQUESTED = "document.requested"
PAYS_AT = {"failed, pays at 1": 1, "failed, pays at 2": 2, "failed, never pays": 0}  # which retry collects the invoice
KINDS = {
    **dict(zip(PAYS_AT, (20, 12, 8), strict=True)),
    **{"paid": 35, "unpaid": 5, "unhandled": 10, "document": 8, "broken document": 2},
}
DOCUMENT_WAYS = (
    "",
    "twice-",
    "late-",
    "early-",
)  # how the document service calls back; see dev/simulators/document_service.py


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One event as its sender knows it. `address` is the customer's e-mail, which no other event has."""

    id: str
    kind: str  # one of KINDS
    subject: str  # the invoice, the checkout session, the document
    address: str
    customer: str = ""
    thing: dict[str, Any] = field(default_factory=dict)  # as Stripe shows it, where it is one of Stripe's


@dataclass(frozen=True, slots=True)
class Traffic:
    """Every event, and the deliveries of them in the order in which they are begun."""

    events: dict[str, ShopEvent]
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


def _make(number: int, kind: str, customers: int, now: int) -> tuple[ShopEvent, Delivery]:
    address = f"customer-{number}@example.test"
    if "document" in kind:
        return _document(number, kind, address)
    event_type, thing = _thing(number, kind, address, now)
    addressless = kind in PAYS_AT and number % WITHOUT_ADDRESS == 0  # such a one keeps a customer of its own
    thing |= {"customer_email": None} if addressless else {"customer": f"cus_Chaos{number % customers}"}
    sent = ShopEvent(event_id(number), kind, thing["id"], address, thing["customer"], thing)
    return sent, Delivery(sent.id, event_type, event(number, event_type, thing, now))


def _document(number: int, kind: str, address: str) -> tuple[ShopEvent, Delivery]:
    """A call of our API. The document's name is its Idempotency-Key too, and tells the service how to treat it."""
    way = "fails-" if kind == "broken document" else DOCUMENT_WAYS[number % len(DOCUMENT_WAYS)]
    name = f"{way}document-{number}"
    wanted = {"document_id": name, "options": {"ocr": True}, "notify": {"email": address}}
    return ShopEvent(name, kind, name, address), Delivery(name, DOCUMENT_REQUESTED, json.dumps(wanted).encode())


def _thing(number: int, kind: str, address: str, now: int) -> tuple[str, dict[str, Any]]:
    if kind in PAYS_AT:
        return "invoice.payment_failed", failed_invoice(number, address, 1, now, NEW_VERSION)
    if kind == "unhandled":
        return "customer.updated", customer(number, address, now)
    return "checkout.session.completed", checkout_session(number, address, paid=kind == "paid", created=now)
