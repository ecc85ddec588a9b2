"""Messages about orders, decided when they are sent."""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from tasks.billing.messages import load_debt
from tasks.billing.subscription_state import FINAL, SIGN_UP
from tasks.handler import Attempt
from tasks.models import Notification, Order, Subscription
from tasks.notifications.kinds import Message
from tasks.notifications.localize import Day, Money, Value
from tasks.orders import product_grants, sources

ORDER_NUMBER_CHARACTERS = 8
ID = re.compile(r"(acct_\w+/)?((prod|price|plan)_\w+|default)")  # says nothing to a customer


def receipt(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """Once the order is fulfilled."""
    order = _load_order(db, notification)
    if order is None or order.state != "fulfilled":
        return None
    plan = db.get(Subscription, order.subscription) if order.subscription else None
    values = {**_order_values(order), "products": _products(attempt, order, plan, notification)}
    return Message(values | _trial(plan))


def order_payment_failed(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the order is not paid. What its subscription still collects must not be ordered again.

    Once the subscription has started, the failure of its invoice has a message of its own.
    """
    order = _load_order(db, notification)
    if order is None or order.state != "payment_failed":
        return None
    values = _order_values(order)
    if order.subscription is None:
        return Message(values)
    debt = load_debt(attempt, db, order.invoice) if order.invoice else None
    row = db.get(Subscription, order.subscription)
    status = debt.stripe_status if debt else row.stripe_status if row else None
    if status in FINAL:
        return Message(values)
    link = debt.invoice.hosted_invoice_url if debt and debt.invoice.state == "open" else None
    if not link or not (status is None or status in SIGN_UP):
        return None
    return Message(values | {"link": link}, "order_payment_open")


def _load_order(db: Session, notification: Notification) -> Order | None:
    """Rows of earlier versions have the order's id among their params."""
    return db.get(Order, notification.about or str(notification.params.get("order", "")))


def _order_values(order: Order) -> dict[str, Value]:
    """The order's number is the end of its id, which the console finds; the amount is in the currency that was paid."""
    amount = Money(order.amount_total, order.currency)
    if order.presentment_amount is not None and order.presentment_currency:
        amount = Money(order.presentment_amount, order.presentment_currency)
    return {"amount": amount, "order": order.session_id[-ORDER_NUMBER_CHARACTERS:]}


def _products(attempt: Attempt, order: Order, plan: Subscription | None, notification: Notification) -> str:
    """What was bought, as the checkout described it, or else what it grants; "" if nothing but ids is known."""
    described = str(notification.params.get("products") or "")
    if described and not ID.fullmatch(described):
        return described
    items = sources.items_of_order(order)
    if order.subscription:
        items = [*items, *(sources.items_of_subscription(plan, [order]) or ())]
    names = product_grants.granted(attempt.settings.fulfilment, items, order.account)
    return ", ".join(name for name in names if not ID.fullmatch(name))


def _trial(plan: Subscription | None) -> dict[str, Value]:
    """Of a trial, when it ends, and what follows."""
    if plan is None or plan.stripe_status != "trialing" or not plan.terms or not plan.terms["trial_end"]:
        return {}
    amount, currency = plan.terms["amount"], plan.terms["currency"]
    renewal = Money(amount, currency) if amount and currency else None
    return {"trial_end": Day(plan.terms["trial_end"]), "renewal": renewal}
