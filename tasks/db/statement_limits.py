"""No SQL statement goes on after the deadline of the attempt that it belongs to.

A statement waits for a lock as long as another transaction holds it, and a thread that waits cannot be stopped.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

STATEMENT_SECONDS = 30  # the most for any statement on Postgres
LOCK_SECONDS = 15  # the most that SQLite waits for another transaction
LEAST_SECONDS = 1.0  # for each statement after the deadline: a handler may record there how its call ended
OPTION, BUSY = "holdfast_deadline", "holdfast_busy_timeout"


def end_statements_at(db: Session, deadline: float) -> None:
    """End each statement of this session at the deadline (time.monotonic()), or LEAST_SECONDS after its own beginning.

    It then raises OperationalError.
    """
    db.bind = db.get_bind().execution_options(**{OPTION: deadline})


def limit_statement(connection: Connection, cursor: Any, *_: Any) -> None:
    """Before a statement on Postgres. Costs a round trip, but only in the last STATEMENT_SECONDS of an attempt."""
    seconds = _seconds_left(connection)
    if seconds < STATEMENT_SECONDS:
        cursor.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")


def limit_lock_wait(connection: Connection) -> None:
    """Before a transaction on SQLite, where only its beginning waits."""
    milliseconds = int(min(_seconds_left(connection), LOCK_SECONDS) * 1000)
    if connection.info.get(BUSY, LOCK_SECONDS * 1000) != milliseconds:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
        connection.info[BUSY] = milliseconds


def _seconds_left(connection: Connection) -> float:
    """The most seconds for a statement that begins now; infinite without a deadline."""
    deadline: float = connection.get_execution_options().get(OPTION, float("inf"))
    return max(deadline - time.monotonic(), LEAST_SECONDS)
