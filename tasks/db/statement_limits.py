"""No SQL statement goes on after the deadline of the attempt that it belongs to.

A statement waits for a lock as long as another transaction holds it, and a thread that waits cannot be stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection

STATEMENT_SECONDS = 30  # the most for any statement on Postgres
LOCK_SECONDS = 15  # the most that SQLite waits for another transaction
LEAST_SECONDS = 1.0  # for each statement after the deadline: a handler may record there how its call ended
BUSY, LIMITED = "holdfast_busy_timeout", "holdfast_statement_timeout"
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def statements_end_at(deadline: float) -> Iterator[None]:
    """In the block, in this thread, end each statement at the deadline (time.monotonic()), or LEAST_SECONDS after its
    own beginning. It then raises OperationalError.
    """
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def limit_statement(connection: Connection, cursor: Any, *_: Any) -> None:
    """Before a statement on Postgres.

    Costs a round trip, but only in the last STATEMENT_SECONDS of an attempt, and once a second in a transaction.
    """
    seconds, transaction = _seconds_left(), connection.get_transaction()
    if seconds >= STATEMENT_SECONDS:
        return
    limited, before = connection.info.get(LIMITED, (None, 0))
    if limited is not transaction or before - seconds > 1:
        cursor.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        connection.info[LIMITED] = transaction, seconds


def limit_lock_wait(connection: Connection) -> None:
    """Before a transaction on SQLite, where only its beginning waits."""
    milliseconds = int(min(_seconds_left(), LOCK_SECONDS) * 1000)
    if connection.info.get(BUSY, LOCK_SECONDS * 1000) != milliseconds:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
        connection.info[BUSY] = milliseconds


def _seconds_left() -> float:
    """The most seconds for a statement that begins now; infinite without a deadline."""
    return max(_deadline.get() - time.monotonic(), LEAST_SECONDS)
