"""Customers that were deleted at Stripe."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.connected_accounts import account_of, within
from tasks.db.locking import insert_if_new
from tasks.handler import Attempt, FollowUp
from tasks.models import DeletedCustomer
from tasks.orders import access
from tasks.payloads import Id, StripeEvent, parse, require


class CustomerObject(Struct):
    id: Id | None = None


def customer_deleted(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.deleted: revoke all access of the customer. Stripe has cancelled the subscriptions."""
    key = require(parse(attempt.event.body, StripeEvent[CustomerObject]).data.object.id, "data.object.id")
    insert_if_new(db, DeletedCustomer, id=within(account_of(attempt), key), deleted_at=attempt.now)
    return access.sync_entitlements(db, attempt, customer=key)
