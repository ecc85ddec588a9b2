"""Group commit against a real Valkey: many events in few round trips, each acknowledged for itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from dev.stack.servers import Valkey
from inbox import queries
from inbox.client import connect
from inbox.errors import StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.job import NewJob, job_id
from inbox.recorder import AsyncConnection, Recorder
from inbox.store import Outcome, Store
from web.receiver.counters import BufferedCounters
from web.receiver.group_commit import MAX_BATCH, GroupCommit


class Counting(Recorder):
    """The record, which tells how many arrivals came in each batch."""

    batches: list[int]

    async def record_all(self, arrivals: Sequence[NewEvent]) -> list[Outcome]:
        self.batches.append(len(arrivals))
        return await super().record_all(arrivals)


@pytest.fixture
def counting(valkey: Valkey, web_store: Store) -> Counting:
    recorder = Counting(web_store, line(valkey))
    recorder.batches = []
    return recorder


def line(valkey: Valkey) -> AsyncConnection:
    return AsyncConnection(valkey.url, timeout_seconds=0.8)


def arrival(name: str) -> NewEvent:
    job = NewJob(job_id("stripe", name, "test"), "tests.support.handlers.plain", "payments")
    return NewEvent(Event("stripe", name, "test", b"{}"), [job])


async def record(group: GroupCommit, *names: str) -> list[BaseException | bool]:
    """All at once; what each sender hears: whether it is new, or why it cannot be recorded."""
    return await asyncio.gather(*(group.record(arrival(name)) for name in names), return_exceptions=True)


def test_what_arrives_at_once_shares_round_trips_and_each_event_is_there(counting: Counting, web_store: Store) -> None:
    names = [f"evt_{n}" for n in range(3 * MAX_BATCH)]
    assert asyncio.run(record(GroupCommit(counting), *names)) == [True] * len(names)
    assert sum(counting.batches) == len(names)
    assert len(counting.batches) <= 5
    assert max(counting.batches) <= MAX_BATCH
    assert all(queries.find_event(web_store, "stripe", name) for name in names)


def test_one_event_twice_in_a_batch_is_recorded_once(counting: Counting, web_store: Store) -> None:
    assert asyncio.run(record(GroupCommit(counting), "evt_1", "evt_1", "evt_2")) == [True, False, True]
    stats = queries.stats(web_store)
    assert stats | {"accepted": 2, "duplicates": 1, "unfinished": 2} == stats


def test_a_store_that_hangs_is_told_to_all_in_one_deadline(
    counting: Counting, valkey: Valkey, web_store: Store
) -> None:
    async def scene() -> None:
        group = GroupCommit(counting)
        assert await record(group, "evt_0") == [True]
        valkey.freeze()
        began = time.monotonic()
        first = asyncio.create_task(record(group, "evt_1"))
        await asyncio.sleep(0.3)  # its batch is on its way; these must wait for it, and for their own
        later = await record(group, "evt_2", "evt_3")
        assert time.monotonic() - began < 3  # one deadline of 1.8 s; after another's and then their own it would be 3.6
        assert [type(heard) for heard in await first + later] == [StoreUnavailable] * 3
        valkey.resume()
        assert all(isinstance(new, bool) for new in await record(group, "evt_1", "evt_2", "evt_3"))

    asyncio.run(scene())
    assert queries.stats(web_store)["accepted"] == 4


def test_a_sender_who_hangs_up_is_recorded_all_the_same(counting: Counting, web_store: Store) -> None:
    async def scene() -> None:
        group = GroupCommit(counting)
        waiting = group.record(arrival("evt_1"))
        await asyncio.sleep(0)  # it is in the batch that starts now
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0.5)
        assert await record(group, "evt_2") == [True]

    asyncio.run(scene())
    assert queries.stats(web_store)["accepted"] == 2


def test_a_store_that_lost_its_scripts_gets_them_again(counting: Counting, web_store: Store) -> None:
    group = GroupCommit(counting)
    web_store.client.script_flush()
    assert asyncio.run(record(group, "evt_1", "evt_2")) == [True, True]
    assert queries.stats(web_store)["accepted"] == 2


def test_one_that_the_store_refuses_spoils_no_other(counting: Counting, web_store: Store) -> None:
    """A key of ours that holds something else fails the script, after it has begun, for that event alone."""
    web_store.client.set("{holdfast}:event:stripe:evt_bad", "no hash")
    heard = asyncio.run(record(GroupCommit(counting), "evt_1", "evt_bad", "evt_2"))
    assert [type(one) for one in heard] == [bool, StoreUnavailable, bool]


class Faulty(Recorder):
    """The record, which fails once in a way that nobody has foreseen."""

    failed = False

    async def record_all(self, arrivals: Sequence[NewEvent]) -> list[Outcome]:
        if not self.failed:
            self.failed = True
            raise RuntimeError("can't start new thread")
        return await super().record_all(arrivals)


def test_an_error_that_nobody_has_foreseen_costs_one_batch_its_200_and_no_later_one(valkey: Valkey) -> None:
    group = GroupCommit(Faulty(Store(connect(valkey.url)), line(valkey)))

    async def scene() -> list[bool | BaseException]:
        return [*await record(group, "evt_1", "evt_2"), *await record(group, "evt_1", "evt_2")]

    heard = asyncio.run(scene())
    assert [type(one) for one in heard] == [StoreUnavailable] * 2 + [bool] * 2


def test_a_master_that_is_made_a_replica_refuses_events_until_it_is_one_again(valkey: Valkey) -> None:
    """It answers an error also to the question how many replicas have them."""
    store = Store(connect(valkey.url), replicas_ack=1)
    group = GroupCommit(Recorder(store, line(valkey)))

    async def scene() -> list[str]:
        heard = await record(group, "evt_1")
        store.client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            store.replicas()
        heard += await record(group, "evt_1")
        store.client.replicaof("NO", "ONE")
        return [str(one) for one in heard + await record(group, "evt_1")]

    few, error = "0 of 1 replicas have confirmed it", "the store is not available (ReadOnlyError)"
    try:
        assert asyncio.run(scene()) == [few, error, few]
    finally:
        store.client.replicaof("NO", "ONE")


def test_figures_are_written_down_together(counting: Counting, web_store: Store) -> None:
    async def scene() -> None:
        tally = BufferedCounters(web_store)
        for _ in range(50):
            tally.count_rejection("stripe", "signature")
            tally.count_ack(0.004)
        await asyncio.sleep(1.5)

    asyncio.run(scene())
    assert queries.stats(web_store)["rejected"] == 50
    told = queries.delivery_counts(web_store)
    assert told == {"rejected:stripe:signature": 50, "unproven:stripe": 50, "ack:5": 50, "ack:us": 200_000}
