"""The tables: concurrent migrations, equality with the models, and types."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from dev.stack.postgres import Postgres
from tasks.db.engine import make_engine
from tasks.db.locking import insert_if_new, select_for_update, upsert_locked
from tasks.db.migrate import MIGRATION_LOCK, migrate
from tasks.models import Base, Document, Effect, PaymentRetry
from tests.support.business import NOW, Business
from tests.support.databases import empty_postgres

ROOT = Path(__file__).parents[4]


def differences(url: str) -> list[object]:
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))
    finally:
        engine.dispose()


@pytest.fixture
def over_tcp(postgres: Postgres) -> Iterator[str]:
    """The URL of a database as over a network, whose other end is a relay to its socket."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as server:
                server.connect(f"{postgres.folder}/.s.PGSQL.5432")
                threading.Thread(target=_pass_on, args=(server, self.request), daemon=True).start()
                _pass_on(self.request, server)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        yield f"postgresql+psycopg://postgres@127.0.0.1:{relay.server_address[1]}/test"
        relay.shutdown()


def _pass_on(come: socket.socket, go: socket.socket) -> None:
    with suppress(OSError):  # the other direction has ended it
        while part := come.recv(65536):
            go.sendall(part)
        go.shutdown(socket.SHUT_WR)


def test_a_connection_to_a_database_whose_machine_has_died_fails_in_seconds(over_tcp: str) -> None:
    engine = make_engine(over_tcp)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        driver: Any = connection.connection.driver_connection
        with socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for name, value in {
                "TCP_KEEPIDLE": 10,
                "TCP_KEEPINTVL": 5,
                "TCP_KEEPCNT": 3,
                "TCP_USER_TIMEOUT": 25_000,
            }.items():
                if sys.platform == "linux" or hasattr(socket, name):  # Linux has all of them
                    assert line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
    engine.dispose()


def test_the_migrations_create_the_tables_of_the_models(database: str) -> None:
    assert differences(database) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_concurrent_migrations_all_succeed(kind: str, tmp_path: Path, postgres: Postgres) -> None:
    url = empty_postgres(postgres) if kind == "postgres" else f"sqlite:///{tmp_path / 'new.db'}"
    environ = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "-m", "tasks.upgrade"]
    processes = [subprocess.Popen(command, env=environ, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 4
    assert differences(url) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_migration_waits_for_a_running_one(kind: str, tmp_path: Path, postgres: Postgres) -> None:
    url = empty_postgres(postgres) if kind == "postgres" else f"sqlite:///{tmp_path / 'new.db'}"
    engine = make_engine(url)
    with ThreadPoolExecutor(1) as thread, engine.begin() as under_way:
        if kind == "postgres":
            under_way.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        waiting = thread.submit(migrate, url)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        under_way.rollback()
        waiting.result(timeout=30)
    engine.dispose()
    assert differences(url) == []


def test_migrating_again_keeps_the_rows(business: Business, database: str) -> None:
    business.run(lambda attempt, db: [], effect="first")
    migrate(database)
    assert business.one(select(Effect)).job_id == "stripe:evt_1:first"


def test_times_come_back_in_utc_whatever_zone_they_went_in_with(business: Business) -> None:
    with business.sessions() as db:
        there = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
        db.add(Effect(job_id="j", follow_ups="[]", done_at=there))
        db.commit()
    done_at = business.one(select(Effect.done_at))
    assert (done_at, done_at.tzinfo) == (NOW, UTC)


def test_a_datetime_without_a_time_zone_is_an_error(business: Business) -> None:
    with business.sessions() as db, pytest.raises(StatementError, match="a datetime must have a time zone"):
        db.add(Effect(job_id="j", follow_ups="[]", done_at=datetime(2026, 1, 1)))  # noqa: DTZ001
        db.flush()


def test_a_locked_row_has_the_changes_of_the_transaction_before(business: Business) -> None:
    def second() -> str:
        with business.sessions() as db:
            return row_of(db).follow_ups

    def row_of(db: Session) -> Effect:
        row = select_for_update(db, Effect, "j")
        assert row is not None
        return row

    with business.sessions() as db:
        db.add(Effect(job_id="j", follow_ups="before", done_at=NOW))
        db.commit()
    with business.sessions() as first, ThreadPoolExecutor(1) as thread:
        row = row_of(first)
        waiting = thread.submit(second)
        time.sleep(0.2)  # the second transaction requests the lock now and waits
        row.follow_ups = "after"
        first.commit()
        assert waiting.result(timeout=30) == "after"


def test_inserting_an_existing_row_changes_nothing_and_returns_false(business: Business) -> None:
    with business.sessions() as db:
        base = {
            "id": "d1",
            "progress": 0,
            "received_bytes": 0,
            "notify_agents": [],
            "created_at": NOW,
            "updated_at": NOW,
        }
        assert insert_if_new(db, Document, document_id="a", status="submitting", **base)
        assert not insert_if_new(db, Document, document_id="b", status="failed", **base)
        db.commit()
    assert business.one(select(Document)).document_id == "a"


def test_an_upsert_returns_the_locked_row_and_whether_it_is_new(business: Business) -> None:
    with business.sessions() as db:
        first, new = upsert_locked(db, PaymentRetry, invoice="in_1", number=1, state="planned", due_at=NOW)
        assert (first.state, new) == ("planned", True)
        first.state = "paid"
        again, new = upsert_locked(db, PaymentRetry, invoice="in_1", number=1, state="planned", due_at=NOW)
        assert (again.state, new) == ("paid", False), "an existing row keeps its values"
        other, new = upsert_locked(db, PaymentRetry, invoice="in_1", number=2, state="planned", due_at=NOW)
        assert (other.number, new) == (2, True)


def test_an_upsert_waits_for_the_transaction_that_holds_the_row_and_sees_its_changes(business: Business) -> None:
    def upsert() -> tuple[str, bool]:
        with business.sessions() as db:
            row, new = upsert_locked(db, Effect, job_id="j", follow_ups="second", done_at=NOW)
            return row.follow_ups, new

    with business.sessions() as first, ThreadPoolExecutor(1) as thread:
        row, _ = upsert_locked(first, Effect, job_id="j", follow_ups="first", done_at=NOW)
        waiting = thread.submit(upsert)
        time.sleep(0.2)  # the second upsert starts now and waits
        row.follow_ups = "changed"
        first.commit()
        assert waiting.result(timeout=30) == ("changed", False)
