"""Subscriptions that no checkout session began (made by API, in the dashboard, by a quote): each is an order by itself.

Stripe is asked for the session of a subscription that no order names, so that the order of a checkout is never doubled,
whichever of its events comes first. It is asked twice, with some time between: what has just been checked out may be
told of before it can be found. Without an API key nobody can know, and such a subscription gives nothing.
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
    """The job that makes the subscription an order, where it seems to have none. May commit."""
    if not _has_no_order(attempt, db, subscription):
        return []
    task, args = RECORD_DIRECT_SUBSCRIPTION, {"subscription": subscription}
    return [FollowUp(f"sold_elsewhere.{subscription}", task, args, delay_seconds=RECHECK_SECONDS)]


def record_order(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The order of a subscription, by the subscription's own id, if there still is no other; access follows."""
    key = str(attempt.args["subscription"])
    if not _has_no_order(attempt, db, key):
        return []
    customer = db.scalar(select(Subscription.customer).filter_by(id=key))
    access.lock_entitlements(db, session=key, subscription=key, customer=customer)
    if access.order_exists(db, Order.subscription, key):  # since we asked
        return []
    about = {"customer": customer, "subscription": key, "amount_total": 0, "currency": ""}
    insert_if_new(
        db, Order, session_id=key, state="fulfilled", created_at=attempt.now, fulfilled_at=attempt.now, **about
    )
    return access.sync_entitlements(db, attempt, session=key)


def _has_no_order(attempt: Attempt, db: Session, subscription: str) -> bool:
    """Neither here nor at Stripe; a session of which Stripe tells nobody any more never becomes one."""
    if access.order_exists(db, Order.subscription, subscription) or not attempt.settings.stripe_api_key:
        return False
    try:
        with outside_transaction(db):
            sessions = stripe.list_sessions(attempt, subscription)
    except stripe.Refused:
        return False
    oldest_resend = (attempt.now - timedelta(days=STRIPE_RESENDS_DAYS)).timestamp()
    return all(session["created"] < oldest_resend for session in sessions)
