"""Stripe Connect: which account an event comes from. https://docs.stripe.com/connect/webhooks"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import Struct

from tasks.handler import Attempt
from tasks.payloads import Id, parse


class Origin(Struct):
    """The account of an event: `account` in a Connect event, `context` in a thin event, neither for our own account."""

    account: Id | None = None
    context: Id | None = None
    livemode: Any = None


def account_name(account: Any, context: Any) -> str:
    """The connected account that an event names; "" for our own. In an organization `context` is `org_…/acct_…`."""
    return str(account or context or "").rpartition("/")[2]


@lru_cache(maxsize=32)
def _origin(body: bytes) -> Origin:
    """Cached: a handler asks up to ten times, and decoding each time took a tenth of what it does."""
    return parse(body, Origin)


def account_of(attempt: Attempt) -> str:
    """The connected account that the attempt's event comes from; "" for our own."""
    origin = _origin(attempt.event.body)
    return account_name(origin.account, origin.context)


def livemode_of(attempt: Attempt) -> bool | None:
    """Whether the attempt's event is of live mode; None if it does not say."""
    found = _origin(attempt.event.body).livemode
    return found if isinstance(found, bool) else None


def within(account: str, name: str) -> str:
    """A name of an account, which no other account has: `acct_1/cus_1`; a name of our own account stays as it is."""
    return f"{account}/{name}" if account else name
