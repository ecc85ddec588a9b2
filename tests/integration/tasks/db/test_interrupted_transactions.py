"""A job's time limit interrupts a transaction, as Celery does: by a signal and an exception. Its locks are released."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dev.stack.postgres import Postgres
from tasks.db.engine import make_engine, make_sessions
from tests.support.databases import fresh_postgres

INSERT = text("INSERT INTO deleted_customers (id, deleted_at) VALUES ('cus_1', '2026-01-01 00:00:00')")
TOUCH = text("UPDATE deleted_customers SET deleted_at = '2026-01-02 00:00:00' WHERE id = 'cus_1'")
OTHER = text("INSERT INTO deleted_customers (id, deleted_at) VALUES ('cus_2', '2026-01-01 00:00:00')")
INTERRUPTIONS = 200
LONGEST_SECONDS = 0.006  # about the duration of `write`


def new_engine(database: str) -> Engine:
    engine = make_engine(database)
    with make_sessions(engine)() as db:
        db.execute(INSERT)
        db.commit()
    return engine


@pytest.fixture
def engine(database: str) -> Engine:
    return new_engine(database)


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, exceeded)
    yield
    signal.signal(signal.SIGUSR1, before)


def exceeded(*_: object) -> None:
    raise SoftTimeLimitExceeded


@contextmanager
def interruption_after(seconds: float) -> Iterator[None]:
    """Interrupt the block after that time, wherever it is then."""
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    try:
        yield
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        timer.join()
        signal.signal(signal.SIGUSR1, exceeded)


def write(db: Session) -> None:
    for _ in range(5):
        db.execute(TOUCH)
    db.commit()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupted finalizer
def test_the_next_job_gets_the_lock_wherever_the_last_one_was_interrupted(engine: Engine, database: str) -> None:
    with make_engine(database).connect() as other:
        for _ in range(INTERRUPTIONS):
            # The pool's check of a connection replaces the exception if it is interrupted.
            with (
                suppress(SoftTimeLimitExceeded, DBAPIError),
                interruption_after(random.uniform(0, LONGEST_SECONDS)),
                make_sessions(engine)() as db,
            ):
                write(db)
            other.execute(TOUCH)
            other.commit()


def test_a_job_that_is_interrupted_while_it_waits_for_a_lock_leaves_none_and_shows_the_interruption(
    postgres: Postgres,
) -> None:
    database = fresh_postgres(postgres)
    engine = new_engine(database)
    with make_engine(database).connect() as holder, make_engine(database).connect() as next_holder:
        holder.execute(TOUCH)
        with pytest.raises(SoftTimeLimitExceeded), interruption_after(0.2), make_sessions(engine)() as db:
            db.execute(OTHER)
            write(db)
        holder.rollback()
        next_holder.execute(TOUCH)
        next_holder.execute(OTHER)


def test_a_process_that_stops_within_a_transaction_keeps_its_locks_for_a_bounded_time(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.db.engine.IDLE_IN_TRANSACTION_SECONDS", 1)
    database = fresh_postgres(postgres)
    with new_engine(database).connect() as stopped, make_engine(database).connect() as next_holder:
        stopped.execute(TOUCH)
        next_holder.execute(TOUCH)
        with pytest.raises(DBAPIError):
            stopped.execute(TOUCH)
