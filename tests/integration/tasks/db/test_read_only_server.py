"""After a failover, the former primary may run on as a read-only standby: no connection to it stays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from dev.stack.postgres import Postgres
from dev.stack.servers import wait_until
from tasks.db.engine import make_engine
from tests.support.databases import fresh_postgres
from web.ops.health import check_database, run_check
from workers.attempt_errors import is_outage

INSERT = text(
    "INSERT INTO deleted_customers (id, deleted_at) VALUES ('cus_1', '2026-01-01 00:00:00') ON CONFLICT DO NOTHING"
)
READ_ONLY = "is read-only: jobs wait until a server accepts writes"


@pytest.fixture
def standby() -> Iterator[Postgres]:
    """A server of its own, because the others must accept writes."""
    with Postgres(forgetful=True) as server:
        yield server


def write(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT)


def refused(engine: Engine) -> bool:
    """Whether a write fails, as an outage."""
    try:
        write(engine)
    except OperationalError as error:
        return is_outage(error)
    return False


def test_connections_to_a_server_that_has_become_read_only_are_replaced(standby: Postgres) -> None:
    engine = make_engine(standby.url("test"))
    with engine.connect() as first, engine.connect() as second:
        pids = {connection.execute(text("SELECT pg_backend_pid()")).scalar_one() for connection in (first, second)}
    standby.refuse_writes()
    wait_until(lambda: refused(engine), seconds=20, what="the connections that exist to be read-only")
    assert refused(engine)  # with a new connection
    standby.accept_writes()
    write(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() not in pids


def test_of_several_hosts_the_one_that_accepts_writes_is_used(standby: Postgres, postgres: Postgres) -> None:
    fresh_postgres(postgres)
    standby.refuse_writes()
    url = f"postgresql+psycopg://postgres@/test?host={standby.folder}:5432&host={postgres.folder}:5432"
    write(make_engine(url))
    with make_engine(postgres.url("test")).connect() as connection:
        assert connection.execute(text("SELECT id FROM deleted_customers")).scalar_one() == "cus_1"


def test_a_read_only_database_is_not_ready(standby: Postgres) -> None:
    engines = [make_engine(standby.url("test")) for _ in range(2)]

    def results() -> list[str]:
        return [run_check(partial(check_database, engine)) for engine in engines]

    assert run_check(partial(check_database, engines[0])) == "ok"  # this one has a connection when it happens
    standby.refuse_writes()
    wait_until(lambda: results() == [READ_ONLY] * 2, seconds=20, what="the checks to report it")
    assert results() == [READ_ONLY] * 2
    standby.accept_writes()
    assert results() == ["ok"] * 2
