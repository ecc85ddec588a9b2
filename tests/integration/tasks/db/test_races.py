"""Many concurrent workers on the same jobs, on the server's clock: they finish, fail, crash, lose their leases."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from dev.stack.servers import Valkey
from inbox.client import connect
from inbox.errors import LeaseLost
from inbox.event import Event
from inbox.job import Lease, NewJob, StoredState
from inbox.retry import RetryAt
from inbox.rules import Rules
from inbox.store import Store
from tests.support import record_model

WORKERS = 8
LEASE_SECONDS = 0.05
EVENTS, JOBS = 20, 3
KEYS = ["", "", "sub_1", "sub_2", "sub_3"]
SECONDS = 60  # enough for a slow machine; it takes about five


class House:
    """The workers' shared log of the record's responses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names = [f"stripe:evt_{event}:job-{n}" for event in range(EVENTS) for n in range(JOBS)]
        self.finished: Counter[str] = Counter()
        self.stale = 0
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()

    def store(self) -> Store:
        return Store(connect(self.url, timeout_seconds=5), Rules(max_attempts=100_000, ring_again_seconds=1))

    def work(self, seed: int) -> None:
        chance, store = random.Random(seed), self.store()
        try:
            until = time.monotonic() + SECONDS
            while len(self.finished) < len(self.names) and time.monotonic() < until:
                rung = [bell.job_id for bell in store.sweep(20, {"payments": 20})]
                for name in [*rung, *chance.sample(self.names, 5)]:
                    lease = store.lease(name, f"worker-{seed}", LEASE_SECONDS)
                    if isinstance(lease, Lease):
                        self._attempt(store, lease, chance)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _attempt(self, store: Store, lease: Lease, chance: random.Random) -> None:
        try:
            match chance.choice(["finish", "oversleep", "fail", "release", "renew", "die"]):
                case "oversleep":
                    time.sleep(LEASE_SECONDS * 1.2)
                    self._finish(store, lease)
                case "finish":
                    self._finish(store, lease)
                case "renew":
                    time.sleep(LEASE_SECONDS / 2)
                    store.renew(lease, LEASE_SECONDS)
                    self._finish(store, lease)
                case "fail":
                    store.fail(lease, "the peer is down", RetryAt(store.now_ms() + chance.randrange(30)))
                case "release":
                    store.release(lease)
        except LeaseLost:
            with self._lock:
                self.stale += 1

    def _finish(self, store: Store, lease: Lease) -> None:
        store.finish(lease)
        with self._lock:
            self.finished[lease.job_id] += 1


def test_workers_that_race_crash_and_lose_leases_finish_every_job_exactly_once(valkey: Valkey) -> None:
    house = House(valkey.url)
    store = house.store()
    for event in range(EVENTS):
        jobs = [
            NewJob(f"stripe:evt_{event}:job-{n}", "tasks.a", "payments", ordering_key=KEYS[(event + n) % len(KEYS)])
            for n in range(JOBS)
        ]
        store.record(Event("stripe", f"evt_{event}", "invoice.paid", b"{}"), jobs)
    threads = [threading.Thread(target=house.work, args=(seed,)) for seed in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert house.errors == []
    assert house.finished == Counter(house.names)
    assert house.stale > 0, "no race was ever lost: this test has tested nothing"
    record = record_model.read(store.client)
    record_model.check(record, house.store().now_ms())
    assert record.where(StoredState.SUCCEEDED) == set(house.names)
