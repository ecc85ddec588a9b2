"""Transactions and outgoing calls: a handler holds no transaction open while it waits for another server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session


@contextmanager
def outside_transaction(db: Session) -> Iterator[None]:
    """Commit, then run the block with no transaction open: an open one would lock rows (on SQLite, the whole database).

    The block may read loaded rows and may commit short transactions of its own, but must not leave one open: that
    raises RuntimeError at its end. If the block raises, its own exception is passed on.
    """
    db.commit()
    yield
    if db.in_transaction():
        raise RuntimeError("a transaction is open around an outgoing call: move the SQL out of outside_transaction()")
