"""Fetch the current version of a Stripe object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from tasks.clients import stripe
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.payloads import convert

T = TypeVar("T")


def fetch_current(
    attempt: Attempt, db: Session, fetch: Callable[[Attempt, str], dict[str, Any]], key: str | None, shape: type[T]
) -> T | None:
    """Fetch an object by its id and decode it as `shape`; `fetch` is a call of tasks/clients/stripe.py. May commit.

    None without an id or an API key, or if Stripe does not know the object.
    """
    if not key or not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            return convert(fetch(attempt, key), shape)
    except stripe.Refused:
        return None


def observed_at(attempt: Attempt, created: int) -> int:
    """The time of a fetched version: now, but never before its event, in case the store's clock is behind Stripe's.

    `attempt.now` is the store's clock. By the clocks of the workers, a version that was fetched by one whose clock is
    ahead would seem newer than the next one.
    """
    return max(int(attempt.now.timestamp()), created)
