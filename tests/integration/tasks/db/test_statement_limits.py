"""A statement that waits for a lock ends at the deadline of its attempt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from tasks.db.engine import make_engine, make_sessions
from tasks.db.statement_limits import LOCK_SECONDS, statements_end_at
from tasks.models import Customer
from tests.support.business import NOW


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = make_engine(database)
    with make_sessions(made)() as db:
        db.add(Customer(id="cus_1", sequence=0, livemode=False, created_at=NOW, account=""))
        db.commit()
    yield made
    made.dispose()


@contextmanager
def row_locked(engine: Engine) -> Iterator[None]:
    with make_sessions(engine)() as other:
        lock(other)
        yield


def lock(db: Session) -> None:
    db.execute(select(Customer).where(Customer.id == "cus_1").with_for_update())


@pytest.mark.parametrize("left", [1.5, -60])
def test_a_wait_for_a_lock_ends_at_the_deadline(engine: Engine, left: float) -> None:
    with row_locked(engine), make_sessions(engine)() as db:
        began = time.monotonic()
        with statements_end_at(began + left), pytest.raises(OperationalError):
            lock(db)
        assert time.monotonic() - began < LOCK_SECONDS - 3


def test_a_later_statement_has_what_is_left(engine: Engine) -> None:
    with statements_end_at(time.monotonic() + 2), make_sessions(engine)() as db:
        db.execute(text("SELECT 1"))
        db.commit()
        time.sleep(1)
        with row_locked(engine):
            began = time.monotonic()
            with pytest.raises(OperationalError):
                lock(db)
            assert time.monotonic() - began < LOCK_SECONDS - 3


def test_what_a_handler_records_after_its_deadline_is_stored(engine: Engine) -> None:
    with statements_end_at(time.monotonic() - 60), make_sessions(engine)() as db:
        db.get_one(Customer, "cus_1").sequence = 7
        db.commit()
    with make_sessions(engine)() as db:
        assert db.get_one(Customer, "cus_1").sequence == 7


def test_the_next_user_of_a_connection_has_no_deadline(engine: Engine) -> None:
    """Of a pool of connections, whose settings outlive a transaction."""
    with statements_end_at(time.monotonic() - 60), make_sessions(engine)() as db:
        lock(db)
        db.commit()
    with make_sessions(engine)() as db:
        asked = "PRAGMA busy_timeout" if engine.dialect.name == "sqlite" else "SHOW statement_timeout"
        assert db.execute(text(asked)).scalar() in (LOCK_SECONDS * 1000, "30s")
