"""The record's scripts against a real Valkey, one claim each."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from dev.stack.servers import Valkey
from inbox import find
from inbox.client import connect
from inbox.errors import LeaseLost, StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.find import Filter
from inbox.job import Doorbell, Lease, NewJob, NextJobRequest
from inbox.queries import stats
from inbox.retry import DeadLetter, RetryAt
from inbox.rules import DAY_MS, Rules
from inbox.store import PREFIX, Store
from inbox.wire import nonce
from tasks import broker
from tests.conftest import Clock
from tests.support.lossy_proxy import LossyProxy

EVENT = Event("stripe", "evt_1", "invoice.payment_failed", b'{"id":"evt_1"}')
BELL = Doorbell("j1", "tasks.a", "payments")
ROOM = {"payments": 100}


def job(name: str = "j1", *, key: str = "", delay: int = 0) -> NewJob:
    return NewJob(name, "tasks.a", "payments", {"n": 1}, delay, key)


def leased(store: Store, job_id: str = "j1", seconds: float = 60) -> Lease:
    lease = store.lease(job_id, "worker-1", seconds, "task-1")
    assert isinstance(lease, Lease), lease
    return lease


def test_an_event_is_recorded_once_however_often_it_is_delivered(store: Store) -> None:
    assert store.record(EVENT, [job()]) == [BELL]
    assert store.record(EVENT, [job()]) is None
    assert stats(store) | {"accepted": 1, "duplicates": 1, "unfinished": 1} == stats(store)


def test_a_lease_contains_the_event_as_it_was_signed(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    lease = leased(store)
    facts = ("j1", clock.ms, 1, {"n": 1}, "stripe", "evt_1", EVENT.type, EVENT.body, clock.ms)
    assert lease == Lease(*facts, replays=0, first=True, task="tasks.a", task_id="task-1", leased_ms=clock.ms)


@pytest.mark.parametrize("end", ["released", "failed", "ran out", "replayed"])
def test_only_the_first_lease_of_a_job_is_marked_as_first(store: Store, clock: Clock, end: str) -> None:
    store.record(EVENT, [job()])
    lease = leased(store)
    if end == "released":
        store.release(lease)
    elif end == "failed":
        store.fail(lease, "the peer is down", RetryAt(clock.ms))
    elif end == "replayed":
        store.finish(lease)
        store.replay("j1", "ada")
    clock.forward(61)
    assert (lease.first, leased(store).first) == (True, False)


def holding(store: Store, job_id: str) -> Lease:
    """The lease of a job that worker-1 holds, as far as its finish needs it."""
    token: Any = store.client.hget(f"{PREFIX}job:{job_id}", "token")
    return Lease(job_id, int(token), 1, {}, "", "", "", b"", 0)


def wish(*tasks: str) -> NextJobRequest:
    return NextJobRequest("worker-1", 60, "payments", tasks, nonce())


@pytest.fixture
def with_broker(store: Store, clock: Clock) -> Store:
    """A store whose broker is the same server, with the doorbells of j1, j2 and j3 in its list."""
    both = Store(store.client, message=broker.task_message, now_ms=clock)
    both.record(EVENT, [job("j1"), job("j2"), job("j3")])
    return both


def test_a_finish_can_lease_the_job_of_the_next_doorbell(with_broker: Store) -> None:
    store = with_broker
    task_ids = [json.loads(raw)["headers"]["id"] for raw in store.client.lrange("payments", 0, -1)][::-1]
    store.client.rpop("payments")
    found: Lease | str = leased(store)
    for name, task_id in (("j2", task_ids[1]), ("j3", task_ids[2])):
        assert isinstance(found, Lease)
        bells, found = store.finish_and_lease(found, [], wish("tasks.a"))
        assert isinstance(found, Lease)
        assert (bells, found.job_id, found.task, found.task_id, found.attempt) == ([], name, "tasks.a", task_id, 1)
    assert isinstance(found, Lease)
    assert store.finish_and_lease(found, [], wish("tasks.a")) == ([], "none")
    assert stats(store) | {"succeeded": 3, "running": 0} == stats(store)


@pytest.mark.parametrize(
    "message",
    [
        broker.task_message(NewJob("j9", "tasks.b", "payments")),
        broker.task_message(NewJob("it's", "tasks.a", "payments")),
        broker.task_message(NewJob("a\\b", "tasks.a", "payments")),
        b"no JSON",
        b"[]",
        b'{"headers": {"task": "tasks.a"}}',
    ],
)
def test_a_doorbell_for_another_task_is_left_to_celery(with_broker: Store, message: bytes) -> None:
    with_broker.client.rpush("payments", message)
    waiting = with_broker.client.lrange("payments", 0, -1)
    assert with_broker.finish_and_lease(leased(with_broker), [], wish("tasks.a")) == ([], "none")
    assert with_broker.client.lrange("payments", 0, -1) == waiting


def test_a_doorbell_whose_job_is_done_gives_no_lease(with_broker: Store) -> None:
    lease = leased(with_broker)
    assert with_broker.finish_and_lease(lease, [], wish("tasks.a")) == ([], "done")
    assert with_broker.client.llen("payments") == 2


def test_a_worker_that_lost_its_lease_can_lease_the_next_job(with_broker: Store, clock: Clock) -> None:
    with_broker.client.rpop("payments")
    lease = leased(with_broker)
    clock.forward(61)
    with_broker.sweep(10, {})
    bells, found = with_broker.finish_and_lease(lease, [], wish("tasks.a"))
    assert isinstance(bells, LeaseLost)
    assert isinstance(found, Lease)
    assert found.job_id == "j2"


@pytest.mark.parametrize("known", ["", "finish", "lease"])
def test_each_script_runs_once_on_a_server_that_lacks_some_scripts(with_broker: Store, known: str) -> None:
    store = with_broker
    store.client.rpop("payments")
    lease = leased(store)
    store.client.script_flush()
    if known:
        store.client.script_load(store._scripts[known].script)
    bells, found = store.finish_and_lease(lease, [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert (bells, found.job_id, store.client.llen("payments")) == ([], "j2", 1)


@pytest.fixture
def line(valkey: Valkey) -> LossyProxy:
    return LossyProxy(("127.0.0.1", valkey.port), about=b"j1")


@pytest.fixture
def over_line(with_broker: Store, line: LossyProxy, clock: Clock) -> Store:
    """The store of `with_broker`, with its scripts loaded, over a connection that may lose replies about j1."""
    over = Store(connect(line.url, timeout_seconds=5), message=broker.task_message, now_ms=clock)
    for name in ("lease", "finish", "fail"):
        over.client.script_load(over._scripts[name].script)
    return over


def test_a_lease_whose_reply_was_lost_is_returned_to_the_same_caller_only(over_line: Store, line: LossyProxy) -> None:
    line.lose = 1
    lease = leased(over_line)
    assert (line.lose, lease.attempt, lease.task_id) == (0, 1, "task-1")
    assert over_line.lease("j1", "worker-1", 60) == "busy"
    assert over_line.finish(lease) == []


def test_a_finish_whose_reply_was_lost_raises_no_lease_lost(over_line: Store, line: LossyProxy) -> None:
    lease = leased(over_line)
    line.lose = 1
    assert over_line.finish(lease, [job("j4")]) == []
    assert (line.lose, over_line.client.llen("payments"), stats(over_line)["succeeded"]) == (0, 4, 1)


def test_a_next_lease_whose_reply_was_lost_is_returned_again(over_line: Store, line: LossyProxy) -> None:
    over_line.client.rpop("payments")
    message = json.loads(over_line.client.lindex("payments", -1))  # type: ignore[arg-type]
    lease = leased(over_line)
    line.lose = 1
    bells, found = over_line.finish_and_lease(lease, [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert (line.lose, bells, found.job_id, found.attempt) == (0, [], "j2", 1)
    assert found.task_id == message["headers"]["id"]
    assert (over_line.client.llen("payments"), stats(over_line)["running"]) == (1, 1)
    assert over_line.finish_and_lease(found, [], wish("tasks.a"))[0] == []


def keyed(with_broker: Store) -> Store:
    """Behind the doorbells of j1 to j3: k1 holds an ordering key, and k2 and k3 have been told to wait for it."""
    with_broker.record(Event("stripe", "evt_2", "t", b"{}"), [job(name, key="sub_1") for name in ("k1", "k2", "k3")])
    for _ in range(3):
        with_broker.client.lpop("payments")
    leased(with_broker, "k1")
    assert [with_broker.lease(name, "worker-2", 60) for name in ("k2", "k3")] == ["waiting"] * 2
    return with_broker


def test_the_next_job_is_the_one_that_waits_for_the_ordering_key(with_broker: Store) -> None:
    store = keyed(with_broker)
    bells, found = store.finish_and_lease(holding(store, "k1"), [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert (bells, found.job_id, found.first, store.client.llen("payments")) == ([], "k2", True, 3)
    bells, found = store.finish_and_lease(found, [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert (bells, found.job_id) == ([], "k3")
    _, found = store.finish_and_lease(found, [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert found.job_id == "j1"


def test_a_job_that_waits_for_the_ordering_key_and_cannot_be_the_next_one_is_rung_first(with_broker: Store) -> None:
    store = keyed(with_broker)
    bells, found = store.finish_and_lease(holding(store, "k1"), [], wish("tasks.b"))
    assert (bells, found) == ([Doorbell("k2", "tasks.a", "payments")], "none")
    assert store.push([Doorbell("k2", "tasks.a", "payments")], first=True) == ()
    assert [json.loads(raw)["headers"]["argsrepr"] for raw in store.client.lrange("payments", -2, -1)] == [
        "['j1']",
        "['k2']",
    ]


def test_a_job_whose_key_was_taken_again_is_not_the_next_one(with_broker: Store) -> None:
    """Between the finish and the lease another worker leases it by its doorbell."""
    store = keyed(with_broker)
    store.finish(holding(store, "k1"))
    leased(store, "k2")
    lease = leased(store, "j1")
    store.client.rpop("payments")
    _, found = store.finish_and_lease(lease, [], wish("tasks.a"))
    assert isinstance(found, Lease)
    assert found.job_id == "j2"


def test_a_repeated_request_gets_the_next_lease_that_it_has_already_got(with_broker: Store) -> None:
    with_broker.client.rpop("payments")
    lease, request = leased(with_broker), wish("tasks.a")
    _, lost = with_broker.finish_and_lease(lease, [], request)
    assert isinstance(lost, Lease)
    assert with_broker.finish_and_lease(lease, [], request) == ([], replace(lost, first=False))
    assert stats(with_broker) | {"running": 1, "succeeded": 1} == stats(with_broker)


@pytest.mark.parametrize(
    ("spoiled", "finished", "next_"), [("job:j2", "", "none"), ("jobs:stripe:evt_1", "error", "j2")]
)
def test_a_finish_and_a_lease_take_effect_even_if_the_other_fails(
    with_broker: Store, spoiled: str, finished: str, next_: str
) -> None:
    store = with_broker
    store.client.rpop("payments")
    lease = leased(store)
    store.client.set(f"{{holdfast}}:{spoiled}", "of another kind")
    bells, found = store.finish_and_lease(lease, [job("j4", delay=60)], wish("tasks.a"))
    assert isinstance(bells, StoreUnavailable) == (finished == "error")
    assert (found.job_id if isinstance(found, Lease) else found) == next_


def test_a_finish_leases_no_next_job_if_the_broker_is_another_server(store: Store) -> None:
    store.record(EVENT, [job("j1"), job("j2")])
    assert store.finish_and_lease(leased(store), [], wish("tasks.a")) == ([], "none")
    with pytest.raises(LeaseLost):
        store.finish_and_lease(Lease("j1", 1, 1, {}, "", "", "", b"", 0), [], wish("tasks.a"))


def test_a_second_worker_gets_no_lease(store: Store) -> None:
    store.record(EVENT, [job()])
    leased(store)
    assert store.lease("j1", "worker-2", 60) == "busy"


def test_a_holder_whose_lease_was_not_replicated_changes_nothing_on_the_replica(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    as_replicated: dict[Any, Any] = {key: store.client.dump(key) for key in store.client.scan_iter()}
    old = leased(store)
    store.client.flushall()
    for key, value in as_replicated.items():
        store.client.restore(key, 0, value)
    clock.forward(1)
    new = leased(store)
    with pytest.raises(LeaseLost):
        store.fail(old, "late", DeadLetter("late"))
    assert store.finish(new) == []


def test_a_finished_job_is_done_for_every_later_doorbell(store: Store) -> None:
    store.record(EVENT, [job()])
    store.finish(leased(store))
    assert store.lease("j1", "worker-2", 60) == "done"
    assert stats(store)["succeeded"] == 1


def test_a_lease_of_an_unknown_job_returns_unknown(store: Store) -> None:
    assert store.lease("nobody", "worker-1", 60) == "unknown"


def test_an_expired_lease_goes_to_the_next_worker_and_the_old_holder_changes_nothing(
    store: Store, clock: Clock
) -> None:
    store.record(EVENT, [job()])
    old = leased(store)
    clock.forward(61)
    new = leased(store)
    assert (new.attempt, new.token > old.token) == (2, True)
    for change in (
        lambda: store.finish(old),
        lambda: store.fail(old, "late", DeadLetter("late")),
        lambda: store.release(old),
        lambda: store.renew(old, 60),
    ):
        with pytest.raises(LeaseLost):
            change()
    assert stats(store)["running"] == 1
    store.finish(new)


def test_a_late_finish_is_accepted_if_no_other_worker_leased_the_job(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    lease = leased(store)
    clock.forward(3600)
    store.finish(lease)
    assert stats(store)["succeeded"] == 1


def test_a_renewed_lease_outlives_its_first_end(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    lease = leased(store)
    clock.forward(50)
    store.renew(lease, 60)
    clock.forward(50)
    assert store.sweep(10, ROOM) == []
    assert store.lease("j1", "worker-2", 60) == "busy"


def test_follow_ups_are_created_once_by_the_finish(store: Store) -> None:
    store.record(EVENT, [job()])
    lease = leased(store)
    store.finish(lease, [job("j2"), job("j3", delay=3600)])
    assert store.lease("j3", "worker-1", 60) == "early"
    store.finish(leased(store, "j2"))
    assert stats(store) | {"unfinished": 1, "succeeded": 2} == stats(store)


def test_a_job_may_have_any_number_of_follow_ups(store: Store) -> None:
    store.record(EVENT, [job()])
    bells = store.finish(leased(store), [job(f"f{n}") for n in range(3000)])
    assert [bell.job_id for bell in bells] == [f"f{n}" for n in range(3000)]


def test_a_failed_job_is_due_at_its_time_and_not_before(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    store.fail(leased(store), "the peer is down", RetryAt(clock.ms + 5000))
    assert store.sweep(10, ROOM) == []
    assert store.lease("j1", "worker-1", 60) == "early"
    clock.forward(5)
    assert store.sweep(10, ROOM) == [BELL]
    assert leased(store).attempt == 2


def test_a_dead_letter_stays_dead_until_a_person_replays_it(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    store.fail(leased(store), "no such field", DeadLetter("permanent"))
    clock.forward(400 * 86400)
    assert (store.sweep(10, ROOM), stats(store)["dead"]) == ([], 1)
    assert store.replay("j1", "ada") == [BELL]
    lease = leased(store)
    assert (lease.attempt, lease.replays) == (1, 1)
    assert stats(store) | {"dead": 0, "running": 1} == stats(store)


def test_a_lease_contains_the_number_of_replays(store: Store) -> None:
    store.record(EVENT, [job()])
    for replays in (0, 1, 2):
        lease = leased(store)
        assert lease.replays == replays
        store.fail(lease, "no such field", DeadLetter("permanent"))
        store.replay("j1", "ada")


def test_an_unfinished_or_unknown_job_cannot_be_replayed(store: Store) -> None:
    store.record(EVENT, [job()])
    assert store.replay("j1", "ada") == "unfinished"
    assert store.replay("j9", "ada") == "unknown"


def test_a_replay_of_a_succeeded_job_creates_no_second_follow_up(store: Store) -> None:
    store.record(EVENT, [job()])
    store.finish(leased(store), [job("j2")])
    store.finish(leased(store, "j2"))
    assert store.replay("j1", "ada") == [BELL]
    store.finish(leased(store), [job("j2")])
    assert stats(store) | {"unfinished": 0, "succeeded": 2} == stats(store)


def test_a_returned_job_costs_no_attempt(store: Store) -> None:
    store.record(EVENT, [job()])
    assert store.release(leased(store)) == [BELL]
    assert leased(store).attempt == 1


def test_a_job_that_kills_its_worker_every_time_is_dead_after_its_attempts(store: Store, clock: Clock) -> None:
    store = Store(store.client, Rules(max_attempts=3), now_ms=clock)
    store.record(EVENT, [job()])
    for attempt in (1, 2, 3):
        assert leased(store).attempt == attempt
        clock.forward(61)
        store.sweep(10, ROOM)
    assert store.lease("j1", "worker-1", 60) == "done"
    assert stats(store) | {"dead": 1, "unfinished": 0} == stats(store)


def test_an_unanswered_doorbell_is_rung_again_after_the_set_time(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    assert store.sweep(10, ROOM) == []
    clock.forward(11)
    assert store.sweep(10, ROOM) == [BELL]
    assert store.sweep(10, ROOM) == []


def test_a_long_queue_gets_no_second_doorbells(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    clock.forward(3600)
    assert store.sweep(10, {"payments": 0}) == []
    assert store.sweep(10, {"payments": 1}) == [BELL]


def test_a_sweep_keeps_its_limit_and_the_next_one_returns_the_rest(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job(f"j{n}", delay=5) for n in range(5)])
    clock.forward(6)
    assert [len(store.sweep(3, ROOM)) for _ in range(3)] == [3, 2, 0]


def test_two_jobs_with_one_ordering_key_never_run_at_once_and_the_second_is_rung_when_the_first_ends(
    store: Store,
) -> None:
    store.record(EVENT, [job("j1", key="sub_1"), job("j2", key="sub_1"), job("j3", key="sub_2")])
    first = leased(store, "j1")
    assert store.lease("j2", "worker-2", 60) == "waiting"
    leased(store, "j3")
    assert store.finish(first) == [Doorbell("j2", "tasks.a", "payments")]
    leased(store, "j2")


def test_an_ordering_key_is_free_again_when_its_holder_died_and_the_holder_is_fenced(
    store: Store, clock: Clock
) -> None:
    store.record(EVENT, [job("j1", key="sub_1"), job("j2", key="sub_1")])
    dead_holder = leased(store, "j1")
    assert store.lease("j2", "worker-2", 60) == "waiting"
    clock.forward(61)
    leased(store, "j2")
    with pytest.raises(LeaseLost):
        store.finish(dead_holder)
    assert store.lease("j1", "worker-3", 60) == "waiting"


def test_a_job_that_waited_for_a_dead_holder_is_rung_once_by_one_sweep(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job("j1", key="sub_1"), job("j2", key="sub_1")])
    leased(store, "j1")
    store.lease("j2", "worker-2", 60)
    clock.forward(61)
    assert sorted(bell.job_id for bell in store.sweep(10, ROOM)) == ["j1", "j2"]


def test_a_job_that_waited_for_a_dead_holder_that_is_leased_again_is_rung_by_the_next_sweep(
    store: Store, clock: Clock
) -> None:
    store.record(EVENT, [job("j1", key="sub_1"), job("j2", key="sub_1")])
    leased(store, "j1")
    store.lease("j2", "worker-2", 60)
    clock.forward(61)
    leased(store, "j1")
    assert [bell.job_id for bell in store.sweep(10, ROOM)] == ["j2"]


def test_a_failing_job_releases_its_ordering_key(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job("j1", key="sub_1"), job("j2", key="sub_1")])
    lease = leased(store, "j1")
    store.lease("j2", "worker-2", 60)
    assert store.fail(lease, "down", RetryAt(clock.ms + 9000)) == [Doorbell("j2", "tasks.a", "payments")]
    leased(store, "j2")


def test_an_event_without_jobs_is_recorded_and_counted_as_unhandled(store: Store) -> None:
    store.record(EVENT, [])
    assert store.record(EVENT, []) is None
    assert stats(store) | {"accepted": 1, "unhandled": 1, "unfinished": 0} == stats(store)


def test_a_finished_event_expires_and_an_open_one_never(real_store: Store) -> None:
    client = real_store.client
    real_store.record(EVENT, [job("j1"), job("j2")])
    real_store.finish(leased(real_store, "j1"))
    assert client.ttl("{holdfast}:event:stripe:evt_1") == -1
    real_store.fail(leased(real_store, "j2"), "no", DeadLetter("no"))
    assert client.ttl("{holdfast}:body:stripe:evt_1") == -1
    real_store.replay("j2", "ada")
    real_store.finish(leased(real_store, "j2"))
    days = [client.ttl(f"{{holdfast}}:{key}") / 86400 for key in ("event:stripe:evt_1", "body:stripe:evt_1", "job:j1")]
    assert [round(d) for d in days] == [7, 7, 7]


def test_what_is_signed_is_one_event_for_the_retention_time_whatever_its_id(store: Store, clock: Clock) -> None:
    def record(name: str, source: str = "github") -> bool:
        (outcome,) = store.record_all([NewEvent(Event(source, name, "push", b"{}"), [], signed="the digest")])
        return outcome is not None

    assert [record("guid-1"), record("guid-2"), record("guid-1"), record("guid-1", "gitlab")] == [
        True,
        False,
        False,
        True,
    ]
    clock.ms += 34 * DAY_MS
    assert not record("guid-3")
    clock.ms += 9 * DAY_MS  # what expires in the same fifth of the retention time is forgotten together
    assert record("guid-4")


def test_an_event_that_cannot_be_created_is_no_duplicate_when_it_is_delivered_again(store: Store) -> None:
    arrival = NewEvent(Event("github", "guid-1", "push", b"{}"), [], signed="the digest")
    store.client.set(f"{PREFIX}events", "another type of value")
    assert isinstance(store.record_all([arrival])[0], StoreUnavailable)
    store.client.delete(f"{PREFIX}events", f"{PREFIX}event:github:guid-1", f"{PREFIX}body:github:guid-1")
    assert store.record_all([arrival]) == [[]]


@pytest.mark.parametrize(("days_ago", "known"), [(8, True), (34.9, True), (43, False)])
def test_a_pruned_event_is_a_duplicate_for_the_retention_time(
    store: Store, clock: Clock, days_ago: float, known: bool
) -> None:
    clock.ms = int((time.time() - days_ago * 86400) * 1000)  # keys expire by the server's own clock
    store.record(EVENT, [job()])
    store.finish(leased(store))
    assert not store.client.exists("{holdfast}:event:stripe:evt_1", "{holdfast}:body:stripe:evt_1", "{holdfast}:job:j1")
    clock.ms = int(time.time() * 1000)
    store.sweep(10, {})
    assert find.search(store, "events", Filter(), 10).rows == [], "the list forgets it as well"
    assert store.client.zcard("{holdfast}:events") == 0
    assert (store.record(EVENT, [job()]) is None) is known
    assert stats(store)["duplicates"] == known
    assert store.record(Event("stripe", "evt_2", "t", b"{}"), [job("j2")]) is not None


def test_a_sweep_removes_expired_events_from_the_list_in_parts(store: Store, clock: Clock) -> None:
    clock.ms = int((time.time() - 8 * 86400) * 1000)
    store.record(Event("stripe", "dead", "t", b"{}"), [job("j1")])
    store.fail(leased(store, "j1"), "no", DeadLetter("no"))
    for n in range(1200):
        store.record(Event("stripe", f"evt_{n}", "t", b"{}"), [])
    clock.ms = int(time.time() * 1000)
    store.record(Event("stripe", "young", "t", b"{}"), [])
    left = []
    for _ in range(4):
        store.sweep(10, {})
        left.append(store.client.zcard("{holdfast}:events"))
    assert left == [703, 203, 2, 2], "the dead letter and the young one stay"
    store.replay("j1", "ada")
    store.finish(leased(store, "j1"))
    assert store.client.exists("{holdfast}:event:stripe:dead"), "a replay makes it young again"


def test_the_servers_clock_is_used_by_default(real_store: Store) -> None:
    real_store.record(EVENT, [job()])
    assert abs(leased(real_store, seconds=60).received_ms - real_store.now_ms()) < 5000


def test_a_clock_that_was_ahead_does_not_make_every_doorbell_look_lost(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job("ahead", delay=3600), job(), job("j2")])
    clock.forward(3600)
    store.finish(leased(store, "ahead"))
    clock.forward(-3600)
    clock.forward(11)
    assert store.sweep(100, {"payments": 0}) == [], "its queue is long, and nobody has overtaken it yet"
    store.finish(leased(store, "j2"))  # now with the right clock, and not newer than the doorbell
    assert store.sweep(100, {"payments": 0}) == []


def test_a_clock_that_is_set_back_delays_no_job_that_is_due(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job(), job("lost"), job("expired"), job("delayed", delay=5)])
    leased(store, "expired")
    clock.forward(-3600)
    leased(store, "j1")
    assert store.lease("delayed", "worker-1", 60) == "early"
    clock.forward(11)
    store.sweep(100, ROOM)
    clock.forward(11)
    assert [bell.job_id for bell in store.sweep(100, ROOM)] == ["lost"]


def test_a_job_whose_worker_dies_after_the_clock_was_set_back_runs_again_at_once(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    assert isinstance(store.lease("j1", "host-1/1", 60), Lease)
    clock.forward(-3600)
    assert store.end_leases("host-1/1") == [BELL]
    leased(store)


def test_an_overtaken_doorbell_is_rung_again_even_if_its_queue_is_long(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job()])
    clock.forward(11)
    store.record(Event("stripe", "evt_2", "t", b"{}"), [job("j2"), job("j3")])
    assert store.sweep(100, {"payments": 0}) == [], "its queue is long, and nobody has overtaken it yet"
    leased(store, "j2")
    assert store.sweep(100, {"payments": 0}) == [BELL]
    assert store.sweep(100, {"payments": 0}) == [], "once"


def test_doorbells_that_wait_in_a_long_queue_are_not_rung_again(store: Store, clock: Clock) -> None:
    store.record(EVENT, [job(), job("j2"), job("j3")])
    clock.forward(3600)
    assert store.sweep(100, {"payments": 1}) == [BELL], "there is room for one"
    leased(store)
    assert store.sweep(100, {"payments": 0}) == [], "j1 was due no later than the others"


def test_attempts_that_failed_do_not_count_as_lost(store: Store, clock: Clock) -> None:
    """Otherwise a job with a schedule longer than MAX_ATTEMPTS would become dead when its worker dies once."""
    store.record(EVENT, [job()])
    for _ in range(Rules().max_attempts):
        store.fail(leased(store), "the peer is down", RetryAt(clock.ms))
    leased(store)
    clock.forward(61)
    assert [bell.job_id for bell in store.sweep(100, {})] == ["j1"]
