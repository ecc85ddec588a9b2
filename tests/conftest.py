"""Real servers for every test: one Valkey a test process, emptied between tests; SQLite and Postgres.

Every test that asks for `database` runs on both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
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
from tests.support.shared_statements import share_compiled_statements

# HYPOTHESIS_PROFILE=deep looks for minutes in each test that does not say itself how long (tests/support/searching.py).
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.register_profile("all")

ORDER = ("slow", "chaos", "e2e", "integration", "unit")  # the longest tests first, so that no process ends much later


COSTLY = ("postgres", "rabbitmq-postgres", "s3")
ONE_COSTLY_IN = 3  # tests, of those with fewer cases
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30  # of free room that a run may need


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of tests in memory where there is room: an fsync costs nothing there. What a test kills is a
    process, which loses no more there than on a disk."""
    share_compiled_statements()
    settings.load_profile(os.environ.setdefault("HYPOTHESIS_PROFILE", "all" if config.getoption("all") else "default"))
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the combinations that make test leaves out")
    parser.addoption("--max-seconds", type=float, help="fail every test that takes longer and is not marked as slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index("slow" if item.get_closest_marker("slow") else _folder(item)))
    if not config.getoption("--all"):
        further = _further_combinations(items)
        config.hook.pytest_deselected(items=further)
        items[:] = [item for item in items if item not in further]


def _further_combinations(items: list[pytest.Item]) -> set[pytest.Item]:
    """Those marked as matrix. And where a test runs on several servers, all but one of them for each of its cases: one
    case of some tests on COSTLY servers, all others on Redis, on SQLite and in a folder. What is different in Postgres,
    such as locks, is tested in tests/integration/tasks/db, on both databases."""
    further = {item for item in items if item.get_closest_marker("matrix")}
    functions: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item not in further and "db" not in item.path.parts:
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, function in functions.items():
        cases = list(_by_case(function).values())
        costly_case = zlib.crc32(name.encode()) % max(len(cases), ONE_COSTLY_IN)
        for number, case in enumerate(cases):
            costly = [item for item in case if _is_costly(item)]
            cheap = [item for item in case if item not in costly]
            if costly and cheap:
                further.update([*costly[:-1], *cheap] if number == costly_case else costly)
    return further


def _by_case(function: list[pytest.Function]) -> dict[str, list[pytest.Function]]:
    """The items of a test function by their ids without the server."""
    servers = {name for item in function for name, value in _params(item).items() if value in COSTLY}
    cases: dict[str, list[pytest.Function]] = {}
    for item in function:
        case = item.name
        for name in servers:
            case = case.replace(_params(item)[name], "", 1)
        cases.setdefault(case, []).append(item)
    return cases


def _is_costly(item: pytest.Function) -> bool:
    return any(value in COSTLY for value in _params(item).values())


def _params(item: pytest.Function) -> dict[str, str]:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return {name: value for name, value in params.items() if isinstance(value, str)}


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
