"""Who holds access: a customer of Stripe, or the order of a guest, who has none. Each change locks their row."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from tasks.connected_accounts import account_of, livemode_of, within
from tasks.db.locking import insert_or_lock, select_for_update
from tasks.handler import Attempt
from tasks.models import Customer


def holder_of(account: str, customer: str | None, source: str) -> str:
    """The id of the holder of what `source` (an order or a subscription) provides."""
    return within(account, customer or source)


def lock_customers(db: Session, attempt: Attempt, holders: Iterable[str]) -> dict[str, Customer]:
    """The rows of these holders, locked until the end of the transaction; inserted if new.

    All access of a holder is recomputed under this lock, so that two jobs never miss each other's changes.
    """
    found = {}
    for holder in sorted(holders):
        row = select_for_update(db, Customer, holder)
        if row is None:
            values = {"account": account_of(attempt), "livemode": livemode_of(attempt), "created_at": attempt.now}
            row, _ = insert_or_lock(db, Customer, id=holder, sequence=0, **values)
        if row.livemode is None:
            row.livemode = livemode_of(attempt)
        found[holder] = row
    return found
