"""Subscriptions created outside Checkout (by API, in the dashboard, from a quote): each becomes an order of its own.

For a subscription that no order names, Stripe is asked for a checkout session, so that a checkout never results in two
orders, whichever of its events comes first. It is asked twice, RECHECK_SECONDS apart, because the event of a new
subscription may arrive before its session can be found. Without an API key there is no way to know, and such a
subscription gives no access.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from settings import STRIPE_RESENDS_DAYS
from tasks.clients import stripe
from tasks.db.locking import insert_if_new
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Order, Subscription
from tasks.orders import access
from tasks.routes import RECORD_DIRECT_SUBSCRIPTION

RECHECK_SECONDS = 30


def enqueue_recording(attempt: Attempt, db: Session, subscription: str) -> list[FollowUp]:
    """The job that records an order for this subscription, if it has none. May commit."""
    if not _has_no_order(attempt, db, subscription):
        return []
    task, args = RECORD_DIRECT_SUBSCRIPTION, {"subscription": subscription}
    return [FollowUp(f"sold_elsewhere.{subscription}", task, args, delay_seconds=RECHECK_SECONDS)]


def record_order(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Record an order under the subscription's own id, unless it has an order by now, and sync its access."""
    key = str(attempt.args["subscription"])
    if not _has_no_order(attempt, db, key):
        return []
    customer = db.scalar(select(Subscription.customer).filter_by(id=key))
    access.lock_entitlements(db, session=key, subscription=key, customer=customer)
    if access.order_exists(db, Order.subscription, key):  # recorded during the call
        return []
    values = {"customer": customer, "subscription": key, "amount_total": 0, "currency": ""}
    insert_if_new(
        db, Order, session_id=key, state="fulfilled", created_at=attempt.now, fulfilled_at=attempt.now, **values
    )
    return access.sync_entitlements(db, attempt, session=key)


def _has_no_order(attempt: Attempt, db: Session, subscription: str) -> bool:
    """Whether neither we nor Stripe know an order for it.

    A session too old for Stripe to resend its events does not count: it never becomes an order.
    """
    if access.order_exists(db, Order.subscription, subscription) or not attempt.settings.stripe_api_key:
        return False
    try:
        with outside_transaction(db):
            sessions = stripe.list_sessions(attempt, subscription)
    except stripe.Refused:
        return False
    oldest_resend = (attempt.now - timedelta(days=STRIPE_RESENDS_DAYS)).timestamp()
    return all(session["created"] < oldest_resend for session in sessions)
