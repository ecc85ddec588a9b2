"""Behind PgBouncer in transaction mode, each transaction may run in another server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from dev.stack.postgres import Postgres
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Effect
from tests.support.business import Business, at_once
from tests.support.databases import fresh_postgres
from tests.support.lives import invoice
from tests.support.pgbouncer import BINARY, PgBouncer

pytestmark = pytest.mark.skipif(not BINARY, reason="PgBouncer is not installed (apt-get install pgbouncer)")
THREADS, EVENTS = 4, 20
LOCK = text("SELECT pg_advisory_xact_lock(1)")


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    fresh_postgres(postgres)
    with PgBouncer(postgres, processes=THREADS) as server:
        yield server


def test_jobs_of_several_processes_share_the_servers_processes(pooler: PgBouncer, tmp_path: Path) -> None:
    """Prepared statements and settings of a session would be those of another process."""

    def work(number: int) -> None:
        engine = make_engine(pooler.url)
        business = Business(make_sessions(engine), tmp_path)
        for n in range(EVENTS):
            invoice("payment_failed", number * EVENTS + n, n, id=f"in_{number}_{n}", customer=f"cus_{n}").to(business)
        engine.dispose()

    at_once(work, THREADS)
    with make_engine(pooler.url).connect() as connection:
        assert connection.execute(select(func.count()).select_from(Effect)).scalar_one() == THREADS * EVENTS


def test_a_process_that_stops_within_a_transaction_keeps_its_locks_for_a_bounded_time(
    pooler: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.db.engine.IDLE_IN_TRANSACTION_SECONDS", 1)
    with make_engine(pooler.url).connect() as stopped, make_engine(pooler.url).connect() as next_holder:
        stopped.execute(LOCK)
        next_holder.execute(LOCK)
        with pytest.raises(DBAPIError):
            stopped.execute(LOCK)


def test_other_clients_of_the_pooler_do_not_get_our_settings(pooler: PgBouncer) -> None:
    engine = make_engine(pooler.url)
    for _ in range(THREADS):
        with engine.begin() as connection:
            connection.execute(LOCK)
    for _ in range(THREADS):
        with psycopg.connect(host="127.0.0.1", port=pooler.port, user="postgres", dbname="test") as other:
            assert other.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def test_a_direct_connection_keeps_its_prepared_statements(postgres: Postgres, pooler: PgBouncer) -> None:
    for url, prepares in ((postgres.url("test"), True), (pooler.url, False)):
        with make_engine(url).connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert (driver.prepare_threshold is not None) is prepares
