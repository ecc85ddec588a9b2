"""The store's file truncated at any byte, and a full disk: acknowledged events are there, and none only in part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.event import Event
from inbox.job import NewJob
from inbox.store import Store
from tests.chaos.conftest import deliver
from tests.conftest import fresh_database
from tests.support import record_model
from tests.support.stack import Stack

CUTS = 30


class Cramped(Valkey):
    """A server with files limited to `kilobytes`, as on a full disk: writing beyond that fails without a signal."""

    kilobytes: int | str = 200

    def command(self) -> list[str]:
        limited = f'trap "" XFSZ; ulimit -f {self.kilobytes}; exec "$@"'
        return ["bash", "-c", limited, "valkey", *super().command()]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cramped]:
    server = Cramped(tmp_path / "valkey")
    yield server
    server.stop()


def the_file(server: Valkey) -> Path:
    (newest,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return newest


def record(store: Store, number: int) -> None:
    name = f"evt_{number}"
    jobs = [
        NewJob(f"stripe:{name}:{what}", "tests.support.handlers.plain", "payments", ordering_key=what) for what in "ab"
    ]
    store.record(Event("stripe", name, "test", b'{"id": 1}'), jobs)


def test_a_file_truncated_within_its_last_write_has_that_write_whole_or_not_at_all(own: Cramped) -> None:
    own.kilobytes = "unlimited"
    own.start()
    store = Store(connect(own.url, timeout_seconds=5))
    for number in range(5):
        record(store, number)
    begin = the_file(own).stat().st_size
    record(store, 5)
    own.kill()
    whole = the_file(own).read_bytes()
    assert len(whole) - begin > CUTS
    for cut in {*range(begin, len(whole), (len(whole) - begin) // CUTS), len(whole)}:
        the_file(own).write_bytes(whole[:cut])
        own.start()
        client = connect(own.url, timeout_seconds=5)
        found = record_model.read(client)
        record_model.check(found, Store(client).now_ms())
        assert len(found.events) == (6 if cut == len(whole) else 5), cut
        assert len(found.jobs) == 2 * len(found.events)
        assert all(client.exists(f"{{holdfast}}:body:{name}") for name in found.events)
        own.kill()


def test_a_full_disk_gives_503_and_every_acknowledged_event_is_there_afterwards(
    own: Cramped, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With `appendfsync always`, Valkey exits if it cannot append: it confirms nothing that is not on disk."""
    own.start()
    stack = Stack(tmp_path, {"REDIS_URL": own.url, "DATABASE_URL": fresh_database(request, "sqlite")})
    try:
        stack.receiver()
        acknowledged = _until_refused(stack)
        assert len(acknowledged) > 20
        assert {deliver(stack, f"evt_more_{n}") for n in range(3)} == {503}
        assert own.process is not None
        assert own.process.wait(10) != 0
        own.kilobytes = "unlimited"
        own.start()
        wait_until(lambda: deliver(stack, "evt_after") == 200, seconds=20, what="the receiver to take events again")
        store = Store(connect(own.url, timeout_seconds=5))
        assert [name for name in acknowledged if queries.find_event(store, "stripe", name) is None] == []
        record_model.check(record_model.read(store.client), store.now_ms())
    finally:
        stack.end()


def _until_refused(stack: Stack) -> list[str]:
    acknowledged = []
    for number in count():
        status = deliver(stack, f"evt_{number}")
        if status != 200:
            assert status == 503
            break
        acknowledged.append(f"evt_{number}")
    return acknowledged
