"""What a paid checkout gives: an order, entitlements, a receipt.

https://docs.stripe.com/checkout/fulfillment
"""

from __future__ import annotations

from msgspec import Struct, field
from sqlalchemy.orm import Session

from tasks.clients import stripe
from tasks.db.locking import upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Order
from tasks.notifications.money import format_amount
from tasks.notifications.notify import notify_customer
from tasks.orders import access, app_webhook, entitlements
from tasks.orders.entitlements import Price
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, convert, parse, ref, require

PAID = frozenset({"paid", "no_payment_required"})
STATES = ("expired", "awaiting_payment", "payment_failed", "fulfilled")  # an order only ever moves to the right


class CustomerDetails(Struct):
    email: Text | None = None
    phone: Text | None = None


class LineItem(Struct):
    price: Price | None = None
    quantity: Int64 | None = None
    description: Text | None = None  # the product's name, as the customer saw it


class LineItems(Struct):
    data: list[LineItem] = field(default_factory=list)
    has_more: bool = False


class Metadata(Struct):
    product: Id | None = None


class CheckoutSession(Struct):
    """What we use of Stripe's checkout session."""

    id: Id | None = None
    mode: Text | None = None
    payment_status: Text | None = None
    customer: Ref = None
    client_reference_id: Id | None = None
    subscription: Ref = None
    payment_intent: Ref = None
    invoice: Ref = None
    amount_total: Int64 | None = None
    currency: Text | None = None
    customer_details: CustomerDetails | None = None
    customer_email: Text | None = None
    locale: Text | None = None  # null or auto: the browser's, which nobody tells
    metadata: Metadata | None = None
    line_items: LineItems | None = None

    @property
    def email(self) -> str | None:
        return (self.customer_details.email if self.customer_details else None) or self.customer_email

    @property
    def phone(self) -> str | None:
        return self.customer_details.phone if self.customer_details else None

    @property
    def names(self) -> dict[str, str | None]:
        """The ids that the order is found by, but for its own."""
        found = {name: ref(getattr(self, name)) for name in ("customer", "subscription", "payment_intent", "invoice")}
        return found | {"client_reference": self.client_reference_id}


def checkout_completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.completed: fulfilled, if it is paid or needs no payment; else the order waits."""
    return _advance(attempt, db, "awaiting_payment", may_be_paid=True)


def async_payment_succeeded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.async_payment_succeeded: the money of a completed checkout has come; fulfilled."""
    return _advance(attempt, db, "awaiting_payment", may_be_paid=True)


def async_payment_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.async_payment_failed: the money will not come; the customer is told."""
    return _advance(attempt, db, "payment_failed")


def expired(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.expired: nobody completed it. Its payment_status says nothing: free ones are never unpaid."""
    return _advance(attempt, db, "expired")


def _advance(attempt: Attempt, db: Session, state: str, *, may_be_paid: bool = False) -> list[FollowUp]:
    """Move the order up to `state`, or to fulfilled, whichever events of its session came before.

    States are ordered and orders only rise, so that any order of arrival ends in the same one.
    """
    session = parse(attempt.event.body, StripeEvent[CheckoutSession]).data.object
    if session.mode == "setup":  # a card for later: nothing was bought
        return []
    if may_be_paid and require(session.payment_status, "data.object.payment_status") in PAID:
        state = "fulfilled"
    bought = _fetch_items(attempt, db, session) if state == "fulfilled" else []
    order, risen = _upsert_order(attempt, db, session, state)
    owed: list[FollowUp] = []
    if risen and state == "fulfilled":
        owed = _fulfil(attempt, db, session, order, bought)
    elif risen and state == "payment_failed":
        owed = [_notify_customer(attempt, db, "order_payment_failed", session, order)]
    return [*owed, *access.sync_entitlements(db, attempt, session=order.session_id)]


def _fetch_items(attempt: Attempt, db: Session, session: CheckoutSession) -> list[LineItem]:
    """What the session's metadata names; else its line items, from Stripe where we may ask, or as they came along."""
    if session.metadata and session.metadata.product:
        return [LineItem(Price(product=session.metadata.product, type="one_time"), quantity=1)]
    came = session.line_items
    if (came and not came.has_more) or not attempt.settings.stripe_api_key:
        return came.data if came else []
    with outside_transaction(db):
        items = stripe.list_line_items(attempt, require(session.id, "data.object.id"))
    return convert(items, list[LineItem])


def _upsert_order(attempt: Attempt, db: Session, session: CheckoutSession, state: str) -> tuple[Order, bool]:
    """The order, locked, in `state` or a higher one, and whether it has just risen to it."""
    key = require(session.id, "data.object.id")
    access.lock_entitlements(
        db, session=key, **{name: value for name, value in session.names.items() if name in access.ORDER_IDS}
    )
    values = {
        "amount_total": session.amount_total or 0,  # null where nothing is charged
        "currency": session.currency or "",
        "created_at": attempt.now,
        **session.names,
    }
    order, new = upsert_locked(db, Order, session_id=key, state=state, **values)
    for name, value in session.names.items():
        if getattr(order, name) is None:
            setattr(order, name, value)
    risen = new or STATES.index(state) > STATES.index(order.state)
    if risen:
        order.state = state
    return order, risen


def _fulfil(
    attempt: Attempt, db: Session, session: CheckoutSession, order: Order, bought: list[LineItem]
) -> list[FollowUp]:
    """Once per order: what it bought, by which access follows; the receipt; word to the application."""
    order.fulfilled_at, order.bought = attempt.now, [entitlements.make_item(one.price, one.quantity) for one in bought]
    granted = entitlements.granted_names(attempt.settings.fulfilment, order.bought)
    names = [one.description for one in bought if one.description] or granted
    receipt = _notify_customer(attempt, db, "receipt", session, order, products=", ".join(names))
    what = {
        "entitlements": granted,
        "items": entitlements.serialize_items(order.bought),
        "amount_total": order.amount_total,
        "currency": order.currency,
    }
    return [receipt, *app_webhook.enqueue(db, attempt, "order.fulfilled", order, what)]


def _notify_customer(
    attempt: Attempt, db: Session, kind: str, session: CheckoutSession, order: Order, **words: str
) -> FollowUp:
    return notify_customer(
        db,
        attempt,
        kind,
        session.email,
        phone=session.phone,
        customer=order.customer,
        locale=session.locale,
        order=order.session_id,
        amount=format_amount(order.amount_total, order.currency),
        **words,
    )
