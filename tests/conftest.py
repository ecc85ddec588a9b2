"""Real servers for every test: one Valkey a test process, emptied between tests; SQLite and Postgres.

Every test that asks for `database` runs on both.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey
from inbox.store import Store, connect
from tasks.db.migrate import migrate
from tests.support.buckets import S3, running_s3
from tests.support.peers import Mailbox

# HYPOTHESIS_PROFILE=deep looks for minutes in each test that does not say itself how long.
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


class Clock:
    """The store's clock in tests that may not wait; milliseconds since 1970."""

    def __init__(self) -> None:
        self.ms = 3_600_000_000_000  # keys age away by the real clock, which must stay behind

    def __call__(self) -> int:
        return self.ms

    def forward(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[Valkey]:
    """A running, empty Valkey; running again after a test that killed or froze it, for who uses the server next."""
    connect(valkey_server.url, timeout_seconds=5).flushall()
    yield valkey_server
    valkey_server.resume()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(valkey: Valkey, clock: Clock) -> Store:
    """The record on a clock the test moves."""
    return Store(connect(valkey.url, timeout_seconds=5), now_ms=clock)


@pytest.fixture
def real_store(valkey: Valkey) -> Store:
    """The record on the server's own clock."""
    return Store(connect(valkey.url, timeout_seconds=5))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres(forgetful=True) as server:
        yield server


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """An SMTP server that keeps what it gets."""
    with Mailbox() as box:
        yield box


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path


def fresh_database(request: pytest.FixtureRequest, kind: str) -> str:
    """The URL of a new database with all tables."""
    if kind == "postgres":
        return str(request.getfixturevalue("postgres").fresh())
    path = request.getfixturevalue("tmp_path") / "test.db"
    shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return fresh_database(request, request.param)
