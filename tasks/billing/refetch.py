"""What a thing is at Stripe now."""

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
    """The thing with this id, by one of the calls in tasks/clients/stripe.py; None without a key, or where Stripe does
    not know it. May commit."""
    if not key or not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            return convert(fetch(attempt, key), shape)
    except stripe.Refused:
        return None


def observed_at(attempt: Attempt, created: int) -> int:
    """When it is fetched, for the watermark: a slow clock of ours must not make it older than its event."""
    return max(int(attempt.now.timestamp()), created)
