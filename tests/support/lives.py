"""The events of a subscription's life, as Stripe sends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from tasks import routes
from tasks.handler import FollowUp
from tasks.models import Entitlement, Order
from tests.support.business import NOW, Business

T0 = 1_772_000_000

HANDLERS: dict[str, Callable[..., Any]] = {
    kind: resolve_name(routes.TASKS[task].handler)
    for (source, kind), task in routes.ROUTES.items()
    if source == "stripe"
}


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a life."""

    id: str
    type: str
    created: int
    object: dict[str, Any]

    def to(self, business: Business) -> list[FollowUp]:
        body = {"id": self.id, "type": self.type, "created": self.created, "data": {"object": self.object}}
        handler = HANDLERS[self.type]
        return business.run(handler, body, event_id=self.id, effect=f"{handler.__module__}.{handler.__name__}")


def buy_access(business: Business) -> None:
    """An order paid by sub_1, with access, without any message or webhook."""
    ids = {"customer": "cus_1", "subscription": "sub_1", "invoice": "in_1"}
    about: dict[str, Any] = {"amount_total": 1, "currency": "eur", "created_at": NOW, "product": "club"}
    with business.sessions() as db:
        db.add(Order(session_id="cs_1", state="fulfilled", **about, **ids))
        db.flush()
        held = {"holder": "cus_1", "customer": "cus_1", "subscription": "sub_1", "granted_at": NOW}
        db.add(Entitlement(source="sub_1", product="club", quantity=1, **held))
        db.commit()


def invoice(kind: str, number: int, at: int, **fields: Any) -> Happened:
    """invoice.<kind>, of in_1 by default. Odd numbers have the shape of old API versions."""
    old: dict[str, Any] = {"subscription": "sub_1"}
    new = {"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}}
    about = {
        "id": "in_1",
        "object": "invoice",
        "customer": "cus_1",
        "customer_email": "ada@example.com",
        "amount_due": 1999,
        "currency": "eur",
        "attempt_count": 1,
        "created": T0,
        "next_payment_attempt": T0 + at + 86400,
        "hosted_invoice_url": "https://invoice.stripe.com/i/1",
        **(old if number % 2 else new),
        **fields,
    }
    return Happened(f"evt_{number}", f"invoice.{kind}", T0 + at, about)


def subscription(kind: str, number: int, at: int, status: str, product: str = "", **fields: Any) -> Happened:
    """customer.subscription.<kind>, of sub_1, to two of this product; an even number has the product expanded."""
    about = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": status, "trial_end": T0 + 10}
    about |= fields
    if product:
        named: Any = product if number % 2 else {"id": product, "object": "product"}
        about["items"] = {"object": "list", "data": [item("subscription_item", named)], "has_more": False}
    return Happened(f"evt_{number}", f"customer.subscription.{kind}", T0 + at, about)


def item(kind: str, product: Any) -> dict[str, Any]:
    """Two of a product, as a line of a subscription or a checkout session; `kind` is Stripe's type of the line."""
    price = {"id": "price_1", "object": "price", "product": product, "type": "recurring"}
    return {"id": "item_1", "object": kind, "price": price, "quantity": 2}


def refund(number: int, at: int, made: int, invoice: str, **fields: Any) -> Happened:
    """charge.refunded, in full by default, of a charge created for this invoice `made` seconds after T0."""
    about = {
        "id": f"ch_{number}",
        "object": "charge",
        "amount": 1999,
        "amount_refunded": 1999,
        "refunded": True,
        "currency": "eur",
        "created": T0 + made,
        "invoice": invoice,
        **fields,
    }
    return Happened(f"evt_{number}", "charge.refunded", T0 + at, about)


def dispute(kind: str, number: int, at: int, status: str, **fields: Any) -> Happened:
    """charge.dispute.<kind>, of the charge of the refund with the number 3, opened 20 seconds after T0."""
    about = {"id": "dp_1", "object": "dispute", "charge": "ch_3", "created": T0 + 20, "status": status, **fields}
    return Happened(f"evt_{number}", f"charge.dispute.{kind}", T0 + at, about)


def checkout(kind: str, number: int, at: int, **fields: Any) -> Happened:
    """checkout.session.<kind>, of cs_1, that creates sub_1 and is paid by default."""
    about = {
        "id": "cs_1",
        "object": "checkout.session",
        "mode": "subscription",
        "payment_status": "paid",
        "customer": "cus_1",
        "customer_email": "ada@example.com",
        "subscription": "sub_1",
        "invoice": "in_1",
        "amount_total": 1999,
        "currency": "eur",
        "metadata": {"product": "club"},
        **fields,
    }
    return Happened(f"evt_{number}", f"checkout.session.{kind}", T0 + at, about)
