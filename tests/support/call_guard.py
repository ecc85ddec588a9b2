"""Fails a test whose handler makes an outgoing call while its session has a transaction open.

Every client announces its calls by `tracing.call`, so that is where this module looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy.orm import Session

from telemetry import tracing

_session: ContextVar[Session | None] = ContextVar("session", default=None)
_call = tracing.call


@contextmanager
def no_calls_in_transactions(db: Session) -> Iterator[None]:
    """In the block, in this thread, an outgoing call raises AssertionError while `db` has a transaction open."""
    before = _session.set(db)
    try:
        yield
    finally:
        _session.reset(before)


def _checked_call(name: str, url: str) -> Any:
    db = _session.get()
    if db is not None and db.in_transaction():
        raise AssertionError(f"{name} {url} is called while a transaction is open: use outside_transaction(db)")
    return _call(name, url)


tracing.call = _checked_call
