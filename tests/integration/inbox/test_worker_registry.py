"""Workers announce themselves: a queue without a worker is known, and so are two workers of one name."""

from __future__ import annotations

import pytest

from inbox.store import Store
from inbox.worker_registry import GONE_MS, announce, queues_without_worker
from tests.conftest import Clock

QUEUES = ("payments", "documents", "downloads")
MINUTE = GONE_MS / 1000


def without_worker(store: Store) -> list[str]:
    return queues_without_worker(store, QUEUES)


def test_a_queue_that_no_worker_has_consumed_for_a_minute_has_none(store: Store, clock: Clock) -> None:
    announce(store, "all@host", "host/1", QUEUES, QUEUES)
    for _ in range(3):
        clock.forward(MINUTE / 3 + 1)
        announce(store, "some@host", "host/2", ["payments", "downloads"], QUEUES)
    assert without_worker(store) == ["documents"]
    announce(store, "documents@host", "host/3", ["documents"], QUEUES)
    assert without_worker(store) == []


def test_the_workers_of_a_new_installation_have_a_minute_to_start(store: Store, clock: Clock) -> None:
    assert without_worker(store) == []
    announce(store, "payments@host", "host/1", ["payments"], QUEUES)
    assert without_worker(store) == []
    clock.forward(MINUTE + 1)
    announce(store, "payments@host", "host/1", ["payments"], QUEUES)
    assert without_worker(store) == ["documents", "downloads"]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_was_set_hides_no_queue_without_a_worker(store: Store, clock: Clock, step: float) -> None:
    announce(store, "all@host", "host/1", QUEUES, QUEUES)
    clock.forward(step)
    announce(store, "payments@host", "host/2", ["payments"], QUEUES)
    assert without_worker(store) == ["documents", "downloads"]


def test_a_worker_learns_who_announced_itself_last_under_its_name(store: Store) -> None:
    found = [announce(store, "payments@host", worker, (), ()) for worker in ("host/1", "host/1", "host/2", "host/1")]
    assert found == ["", "host/1", "host/1", "host/2"]
    assert announce(store, "documents@host", "host/3", (), ()) == ""
