"""Fulfilment of paid checkout sessions: an order, entitlements, a receipt.

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
from tasks.money import format_amount
from tasks.notifications.notify import notify_customer
from tasks.orders import access, app_webhook, product_grants
from tasks.orders.product_grants import Price
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, convert, parse, ref, require

PAID = frozenset({"paid", "no_payment_required"})
STATES = ("expired", "awaiting_payment", "payment_failed", "fulfilled")  # an order only changes to a later one


class CustomerDetails(Struct):
    email: Text | None = None
    phone: Text | None = None


class LineItem(Struct):
    price: Price | None = None
    quantity: Int64 | None = None
    description: Text | None = None  # the product's name, as shown to the customer


class LineItems(Struct):
    data: list[LineItem] = field(default_factory=list)
    has_more: bool = False


class Metadata(Struct):
    product: Id | None = None


class CheckoutSession(Struct):
    """The fields that we use of https://docs.stripe.com/api/checkout/sessions/object."""

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
    locale: Text | None = None  # null or auto: the browser's, which is not known
    metadata: Metadata | None = None
    line_items: LineItems | None = None

    @property
    def email(self) -> str | None:
        return (self.customer_details.email if self.customer_details else None) or self.customer_email

    @property
    def phone(self) -> str | None:
        return self.customer_details.phone if self.customer_details else None

    @property
    def ids(self) -> dict[str, str | None]:
        """The ids by which the order is found, except its own."""
        found = {name: ref(getattr(self, name)) for name in ("customer", "subscription", "payment_intent", "invoice")}
        return found | {"client_reference": self.client_reference_id}


def checkout_completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.completed: fulfil the order if it is paid or free; else it awaits payment."""
    return _advance(attempt, db, "awaiting_payment", may_be_paid=True)


def async_payment_succeeded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.async_payment_succeeded: the payment of a completed checkout has arrived; fulfil the order."""
    return _advance(attempt, db, "awaiting_payment", may_be_paid=True)


def async_payment_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.async_payment_failed: the payment has failed; notify the customer."""
    return _advance(attempt, db, "payment_failed")


def expired(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.expired. Its payment_status is ignored: a free session is never unpaid."""
    return _advance(attempt, db, "expired")


def _advance(attempt: Attempt, db: Session, state: str, *, may_be_paid: bool = False) -> list[FollowUp]:
    """Advance the order to `state`, or to fulfilled if it may be and is paid.

    States are ordered and never go back, so every order of arrival ends in the same state.
    """
    session = parse(attempt.event.body, StripeEvent[CheckoutSession]).data.object
    if session.mode == "setup":  # saves a card, sells nothing
        return []
    if may_be_paid and require(session.payment_status, "data.object.payment_status") in PAID:
        state = "fulfilled"
    bought = _fetch_items(attempt, db, session) if state == "fulfilled" else []
    order, advanced = _upsert_order(attempt, db, session, state)
    jobs: list[FollowUp] = []
    if advanced and state == "fulfilled":
        jobs = _fulfil(attempt, db, session, order, bought)
    elif advanced and state == "payment_failed":
        jobs = [_notify_customer(attempt, db, "order_payment_failed", session, order)]
    return [*jobs, *access.sync_entitlements(db, attempt, session=order.session_id)]


def _fetch_items(attempt: Attempt, db: Session, session: CheckoutSession) -> list[LineItem]:
    """The product named in the metadata; else the line items, fetched if incomplete and an API key is set."""
    if session.metadata and session.metadata.product:
        return [LineItem(Price(product=session.metadata.product, type="one_time"), quantity=1)]
    sent = session.line_items
    if (sent and not sent.has_more) or not attempt.settings.stripe_api_key:
        return sent.data if sent else []
    with outside_transaction(db):
        items = stripe.list_line_items(attempt, require(session.id, "data.object.id"))
    return convert(items, list[LineItem])


def _upsert_order(attempt: Attempt, db: Session, session: CheckoutSession, state: str) -> tuple[Order, bool]:
    """The order, locked, in `state` or a later one, and whether this call advanced it."""
    key = require(session.id, "data.object.id")
    access.lock_entitlements(
        db, session=key, **{name: value for name, value in session.ids.items() if name in access.ORDER_IDS}
    )
    values = {
        "amount_total": session.amount_total or 0,  # null if nothing is charged
        "currency": session.currency or "",
        "created_at": attempt.now,
        **session.ids,
    }
    order, new = upsert_locked(db, Order, session_id=key, state=state, **values)
    for name, value in session.ids.items():
        if getattr(order, name) is None:
            setattr(order, name, value)
    advanced = new or STATES.index(state) > STATES.index(order.state)
    if advanced:
        order.state = state
    return order, advanced


def _fulfil(
    attempt: Attempt, db: Session, session: CheckoutSession, order: Order, bought: list[LineItem]
) -> list[FollowUp]:
    """Once per order: store the items, and return the jobs for the receipt and the application's webhook."""
    order.fulfilled_at, order.bought = (
        attempt.now,
        [product_grants.make_item(one.price, one.quantity) for one in bought],
    )
    granted = product_grants.granted_names(attempt.settings.fulfilment, order.bought)
    products = [one.description for one in bought if one.description] or granted
    receipt = _notify_customer(attempt, db, "receipt", session, order, products=", ".join(products))
    data = {
        "entitlements": granted,
        "items": product_grants.serialize_items(order.bought),
        "amount_total": order.amount_total,
        "currency": order.currency,
    }
    return [receipt, *app_webhook.enqueue(db, attempt, "order.fulfilled", order, data)]


def _notify_customer(
    attempt: Attempt, db: Session, kind: str, session: CheckoutSession, order: Order, **params: str
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
        **params,
    )
