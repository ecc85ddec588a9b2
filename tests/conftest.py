"""Real servers for every test: one Valkey a test process, emptied between tests; SQLite and Postgres.

Every test that asks for `database` runs on both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey
from inbox.client import connect
from inbox.store import Store
from tasks.db.migrate import migrate
from tests.support.buckets import S3, running_s3
from tests.support.databases import fresh_postgres
from tests.support.peers import Mailbox

# HYPOTHESIS_PROFILE=deep looks for minutes in each test that does not say itself how long (tests/support/searching.py).
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.register_profile("all")

ORDER = ("slow", "chaos", "e2e", "integration", "unit")  # the longest tests first, so that no process ends much later


COSTLY = ("postgres", "rabbitmq-postgres", "s3")
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30  # of free room that a run may need


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of tests in memory where there is room: an fsync costs nothing there. What a test kills is a
    process, which loses no more there than on a disk."""
    settings.load_profile(os.environ.setdefault("HYPOTHESIS_PROFILE", "all" if config.getoption("all") else "default"))
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the combinations marked as matrix")
    parser.addoption("--max-seconds", type=float, help="fail every test that takes longer and is not marked as slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index("slow" if item.get_closest_marker("slow") else _folder(item)))
    if not config.getoption("--all"):
        further = _further_combinations(items)
        config.hook.pytest_deselected(items=further)
        items[:] = [item for item in items if item not in further]


def _further_combinations(items: list[pytest.Item]) -> set[pytest.Item]:
    """Those marked as matrix. And where a test has several cases, all but the first of them on COSTLY servers; the
    others run on Redis, on SQLite and in a folder. What is different in Postgres, such as locks, is tested in
    tests/integration/tasks/db, with every case."""
    further, seen = {item for item in items if item.get_closest_marker("matrix")}, set()
    for item in items:
        case = getattr(item, "callspec", None)
        if case and any(it in case.params.values() for it in COSTLY) and "db" not in item.path.parts:
            function = item.nodeid.partition("[")[0]
            if function in seen:
                further.add(item)
            seen.add(function)
    return further


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # Tests beside this one and other programs make it slower, but by no more than there are processes per processor.
    limit = (item.config.getoption("--max-seconds") or 0) * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    if limit and report.passed and call.duration > limit and not item.get_closest_marker("slow"):
        report.outcome = "failed"
        report.longrepr = f"it took {call.duration:.0f} s; at this load one over {limit:.0f} s must be marked as slow"
    return report


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
        return str(fresh_postgres(request.getfixturevalue("postgres")))
    path = request.getfixturevalue("tmp_path") / "test.db"
    shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return fresh_database(request, request.param)
