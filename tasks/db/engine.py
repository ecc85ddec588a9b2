"""The business database: engine and sessions for SQLite and Postgres."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from tasks.db.statement_limits import LOCK_SECONDS, STATEMENT_SECONDS, limit_lock_wait, limit_statement

# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "client_encoding": "utf8",  # explicit, because an old database may be SQL_ASCII
    # A server whose machine has died sends nothing: a query then fails after 25 seconds instead of 2 hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
    # After a failover the former primary may run on as a read-only standby. Of several hosts: the writable one.
    "target_session_attrs": "read-write",
}
# A process that stops within a transaction, as its machine may do, keeps its locks no longer than this. No handler
# waits that long between two statements: outgoing calls are made outside transactions.
IDLE_IN_TRANSACTION_SECONDS = 30
CANCEL_SECONDS = 1
PING_SECONDS = 3
MAX_POSTGRES_CONNECTIONS = 10


class PostgresConnection(psycopg.Connection[Any]):
    """A connection that is closed by a rollback if its statement still runs, as after the time limit of a job.

    Psycopg raises OperationalError for such a rollback, and the transaction stays open on the server, with its locks.
    A statement that waits for a lock is cancelled, because the server does not notice there that the client has gone.
    The pool replaces a closed connection.

    `behind_pooler`: it leads to a pooler such as PgBouncer, which may run each transaction in another server process.
    """

    behind_pooler = False

    def rollback(self) -> None:
        if self.info.transaction_status is TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
            self.close()
        if not self.closed:
            super().rollback()

    def accepts_writes(self) -> bool:
        """Ask the server. False without an answer within PING_SECONDS: perhaps only our side has the connection."""
        try:
            self.pgconn.send_query(b"SHOW transaction_read_only")
            return self._replies() == [b"off"]
        except psycopg.Error:
            return False

    def _replies(self) -> list[bytes | None]:
        """The values that arrive until the end of the query, or of PING_SECONDS."""
        values, end = list[bytes | None](), time.monotonic() + PING_SECONDS
        readable = select.poll()
        readable.register(self.pgconn.socket, select.POLLIN)
        while True:
            while self.pgconn.is_busy():
                if not readable.poll(max(0, end - time.monotonic()) * 1000):
                    return []
                self.pgconn.consume_input()
            if not (result := self.pgconn.get_result()):
                return values
            values.append(result.get_value(0, 0))


def make_engine(url: str, threads: int = 1) -> Engine:
    """An engine for `url`, which connects lazily. Its errors do not include values.

    On Postgres it connects only to a server that accepts writes.
    On SQLite, as on Postgres, a commit is on disk before it returns. `threads` may use it at the same time: they hold a
    connection only within a transaction, so on Postgres they share a few; on SQLite one, because there they take turns
    to write, and those that wait for a connection are served in order.
    """
    if not url.startswith("sqlite"):
        pool = {"pool_size": min(max(threads, 2), MAX_POSTGRES_CONNECTIONS)}
        engine = create_engine(url, hide_parameters=True, connect_args=POSTGRES_OPTIONS, **pool)
        event.listen(engine, "do_connect", _connect_postgres)
        event.listen(engine, "checkout", _check_connection)
        event.listen(engine, "begin", _limit_transaction)
        event.listen(engine, "handle_error", _leave_read_only_server)
        event.listen(engine, "before_cursor_execute", limit_statement)
        return engine
    pool = {"pool_size": 1, "max_overflow": 0} if threads > 1 else {}
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": LOCK_SECONDS}, **pool)
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def make_sessions(engine: Engine) -> Callable[[], Session]:
    """A factory of sessions. Loaded rows stay readable after a commit: handlers commit before outgoing calls."""
    return sessionmaker(engine, expire_on_commit=False)


def is_read_only(error: OperationalError) -> bool:
    """True if the server, or each of several, refuses writes."""
    return isinstance(error.orig, ReadOnlySqlTransaction) or "session is read-only" in str(error.orig)


def _connect_postgres(_dialect: Any, _record: Any, arguments: Any, options: Any) -> PostgresConnection:
    connection = PostgresConnection.connect(*arguments, **options)
    process = connection.execute("SELECT pg_backend_pid()").fetchone()
    if process != (connection.info.backend_pid,):
        connection.behind_pooler = True
        connection.prepare_threshold = None  # another process would not know the prepared statement
    else:
        connection.execute(_set_limits("false"))
    connection.commit()
    return connection


def _check_connection(connection: PostgresConnection, _record: Any, _proxy: Any) -> None:
    """Before each use of a connection of the pool, which replaces one that fails. Its own `pool_pre_ping` waits for
    ever on a connection on which nothing passes, and is content with a read-only server."""
    if not connection.accepts_writes():
        raise DisconnectionError


def _set_limits(is_local: str) -> str:
    """`is_local`: "true" for the current transaction only."""
    idle = f"set_config('idle_in_transaction_session_timeout', '{IDLE_IN_TRANSACTION_SECONDS}s', {is_local})"
    return f"SELECT {idle}, set_config('statement_timeout', '{STATEMENT_SECONDS}s', {is_local})"


def _limit_transaction(connection: Any) -> None:
    """Behind a pooler, a setting of the session would stay with a process that serves other clients, too."""
    if connection.connection.driver_connection.behind_pooler:
        connection.exec_driver_sql(_set_limits("true"))


def _leave_read_only_server(context: ExceptionContext) -> OperationalError | None:
    """A server that was demoted keeps its connections. The pool replaces all of them, and the error is an outage."""
    if not isinstance(context.original_exception, ReadOnlySqlTransaction):
        return None
    context.is_disconnect = True
    return OperationalError(None, None, context.original_exception)


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions itself: see _begin_immediate
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    """Take the write lock first: a transaction that reads and later writes would fail if another has written since."""
    limit_lock_wait(connection)
    connection.exec_driver_sql("BEGIN IMMEDIATE")
