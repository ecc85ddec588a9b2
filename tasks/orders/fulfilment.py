"""Fulfilment of paid orders: access, a receipt, and a webhook to the application, once.

https://docs.stripe.com/checkout/fulfillment
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.clients import stripe
from tasks.connected_accounts import account_of
from tasks.db.locking import select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Order
from tasks.notifications.notify import notify_customer
from tasks.orders import access, product_grants, sources
from tasks.orders.product_grants import Item, Price
from tasks.ownership import is_ours
from tasks.payloads import (
    Id,
    Int64,
    Ref,
    StripeEvent,
    Text,
    UnixTime,
    convert,
    metadata_of,
    parse,
    product_of,
    ref,
    require,
    short,
)

PAID = frozenset({"paid", "no_payment_required"})
STATES = ("expired", "awaiting_payment", "payment_failed", "fulfilled")  # an order only changes to a later one


class CustomerDetails(Struct):
    email: Text | None = None
    phone: Text | None = None


class PresentmentDetails(Struct):
    """What the customer paid, if that is another currency than the shop's (Adaptive Pricing)."""

    presentment_amount: Int64 | None = None
    presentment_currency: Text | None = None


class LineItem(Struct):
    price: Price | None = None
    quantity: Int64 | None = None
    description: Text | None = None  # the product's name, as shown to the customer


class LineItems(Struct):
    data: list[LineItem] = field(default_factory=list)
    has_more: bool = False


class CheckoutSession(Struct):
    """The fields that we use of https://docs.stripe.com/api/checkout/sessions/object."""

    id: Id | None = None
    mode: Text | None = None
    payment_status: Text | None = None
    customer: Ref = None
    customer_account: Id | None = None  # instead of `customer`, if that is an account (Accounts v2)
    client_reference_id: Id | None = None
    subscription: Ref = None
    payment_intent: Ref = None
    invoice: Ref = None
    amount_total: Int64 | None = None
    currency: Text | None = None
    presentment_details: PresentmentDetails | None = None
    customer_details: CustomerDetails | None = None
    customer_email: Text | None = None
    locale: Text | None = None  # null or auto: the browser's, which is not known
    metadata: dict[str, Any] | None = None
    line_items: LineItems | None = None
    created: UnixTime = 0

    @property
    def ids(self) -> dict[str, str | None]:
        """The ids by which the order is found, except its own."""
        found = {name: ref(getattr(self, name)) for name in ("subscription", "payment_intent", "invoice")}
        return {"customer": ref(self.customer) or self.customer_account, **found}

    @property
    def details(self) -> dict[str, Any]:
        """What an order learns from any of its session's events."""
        contact, paid = self.customer_details or CustomerDetails(), self.presentment_details or PresentmentDetails()
        return {
            **self.ids,
            "client_reference": self.client_reference_id,
            "email": short(contact.email) or short(self.customer_email),
            "phone": contact.phone,
            "locale": self.locale,
            "presentment_amount": paid.presentment_amount,
            "presentment_currency": paid.presentment_currency,
            "product": product_of(self.metadata),
            "meta": metadata_of(self.metadata) or None,
        }


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


def complete_order(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fulfil an order whose payment another event reported than its session's: an invoice, a captured payment."""
    key = str(attempt.args["order"])
    order = db.get(Order, key)
    if order is None:
        raise PermanentError("the order does not exist")
    lacks_items = key.startswith("cs_") and not order.product and not order.bought
    items = _fetch_line_items(attempt, db, key) if lacks_items else []
    access.lock_entitlements(db, **_ids(order))
    order = select_for_update(db, Order, key)
    if order is None or order.state == "fulfilled" or not sources.is_paid(db, order):
        return []
    order.bought = order.bought or items
    return fulfil(attempt, db, order)


def sync_subscription(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Recompute what a subscription provides: a job that earlier versions enqueued for those without a checkout."""
    return access.sync_entitlements(db, attempt, subscription=str(attempt.args["subscription"]))


def fulfil(attempt: Attempt, db: Session, order: Order) -> list[FollowUp]:
    """Fulfil a locked order, once, if it is ours; returns the jobs for the receipt and the application's webhooks."""
    items = [product_grants.named_item(order.product)] if order.product else order.bought
    if not is_ours(attempt.settings, items or None, order.meta):
        return []
    order.state, order.fulfilled_at = "fulfilled", attempt.now
    granted = sorted(product_grants.granted(attempt.settings.fulfilment, items, order.account))
    before = _sales_replaced(db, order)
    data = {
        "id": order.session_id,
        "client_reference": order.client_reference,
        "metadata": order.meta or {},
        **{name: getattr(order, name) for name in ("subscription", "payment_intent", "invoice")},
        "entitlements": granted,
        "items": product_grants.serialize_items(items),
        **{name: getattr(order, name) for name in ("amount_total", "currency")},
        **{name: getattr(order, name) for name in ("presentment_amount", "presentment_currency")},
        "replaces": before,
    }
    described = [_describe(one) for one in order.bought if one.get("description")]
    receipt = [] if before else [_notify_customer(attempt, db, "receipt", order, products=", ".join(described))]
    return [*receipt, *access.sync_entitlements(db, attempt, data, **_ids(order))]


def _advance(attempt: Attempt, db: Session, state: str, *, may_be_paid: bool = False) -> list[FollowUp]:
    """Advance the order to `state`, or to fulfilled if it may be and is paid.

    States are ordered and never go back, so every order of arrival ends in the same state. If a payment was reported by
    another event, the order is completed by a job of its own.
    """
    session = parse(attempt.event.body, StripeEvent[CheckoutSession]).data.object
    if session.mode == "setup":  # saves a card, sells nothing
        return []
    paid = may_be_paid and require(session.payment_status, "data.object.payment_status") in PAID
    bought, product = _items(session) or [], product_of(session.metadata)
    if paid and not bought and not product:
        bought = _fetch_line_items(attempt, db, require(session.id, "data.object.id"))
    if not is_ours(attempt.settings, product_grants.sold_items(product, bought) or None, session.metadata):
        return []
    order, advanced = _upsert_order(attempt, db, session, "awaiting_payment" if paid else state)
    order.bought = order.bought or bought
    if paid and order.state != "fulfilled":
        return fulfil(attempt, db, order)
    failed = advanced and state == "payment_failed" and not sources.is_paid(db, order)
    jobs = [_notify_customer(attempt, db, "order_payment_failed", order)] if failed else []
    return [*jobs, *access.sync_entitlements(db, attempt, **_ids(order))]


def _ids(order: Order) -> dict[str, str | None]:
    """The ids of what may have to change with an order: also of a sale that it replaces."""
    names = ("payment_intent", "invoice", "subscription")
    return {"session": order.session_id, **{name: getattr(order, name) for name in names}}


def _items(session: CheckoutSession) -> list[Item] | None:
    """The line items, if the event has all of them."""
    sent = session.line_items
    return [_make_item(one) for one in sent.data] if sent and not sent.has_more else None


def _fetch_line_items(attempt: Attempt, db: Session, session: str) -> list[Item]:
    """The line items as Stripe has them; [] without an API key: events do not have them. May commit."""
    if not attempt.settings.stripe_api_key:
        return []
    with outside_transaction(db):
        items = stripe.list_line_items(attempt, session)
    return [_make_item(one) for one in convert(items, list[LineItem])]


def _make_item(line: LineItem) -> Item:
    return {**product_grants.make_item(line.price, line.quantity), "description": line.description}


def _upsert_order(attempt: Attempt, db: Session, session: CheckoutSession, state: str) -> tuple[Order, bool]:
    """The order, locked, in `state` or a later one, and whether this call advanced it."""
    key = require(session.id, "data.object.id")
    access.lock_entitlements(db, session=key, **session.ids)
    values = {
        "account": account_of(attempt),
        "amount_total": session.amount_total or 0,  # null if nothing is charged
        "currency": session.currency or "",
        "created": session.created,
        "created_at": attempt.now,
    }
    order, new = upsert_locked(db, Order, session_id=key, state=state, bought=[], **values, **session.details)
    for name, value in session.details.items():
        if getattr(order, name) is None:
            setattr(order, name, value)
    advanced = new or STATES.index(state) > STATES.index(order.state)
    if advanced:
        order.state = state
    return order, advanced


def _sales_replaced(db: Session, order: Order) -> list[str]:
    """The fulfilled sales that were recorded for this session's payment before the session was known."""
    names = {order.payment_intent, order.invoice} - {None, order.session_id}
    if not names:
        return []
    same = or_(Order.session_id.in_(names)) & (Order.account == order.account) & (Order.state == "fulfilled")
    return sorted(db.scalars(select(Order.session_id).where(same)))


def _notify_customer(attempt: Attempt, db: Session, kind: str, order: Order, **params: Any) -> FollowUp:
    return notify_customer(
        db,
        attempt,
        kind,
        order.email,
        phone=order.phone,
        customer=order.customer,
        locale=order.locale,
        about=order.session_id,
        **params,
    )


def _describe(item: Item) -> str:
    return f"{item['quantity']} × {item['description']}" if (item["quantity"] or 1) > 1 else str(item["description"])
