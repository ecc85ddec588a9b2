"""One job from lease to finish, in this process: the races that a real worker meets only rarely."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.errors import LeaseLost, NotNow, PermanentError, StoreUnavailable, TransientError
from inbox.event import Event
from inbox.job import Doorbell, Lease, NewJob
from inbox.store import Store
from settings import load
from tasks.db.engine import make_engine, make_sessions
from tasks.handler import Attempt, FollowUp, GaveUp
from tasks.models import Effect, Notification
from tests.conftest import Clock
from tests.support.lossy_proxy import LossyProxy
from tests.support.running import run
from workers.attempt_errors import describe
from workers.run import AttemptFailed, Runner

JOB = NewJob("stripe:evt_1:payments.payment_failed", "tasks.payments.payment_failed", "payments")
FOLLOW_UP = FollowUp("notify", "tasks.notifications.send", {"n": 1})


@pytest.fixture
def rung() -> list[Doorbell]:
    return []


@pytest.fixture
def runner(store: Store, database: str, rung: list[Doorbell]) -> Iterator[Runner]:
    engine = make_engine(database)
    store.record(Event("stripe", "evt_1", "invoice.payment_failed", b"{}"), [JOB])
    yield Runner(store, make_sessions(engine), load({}), rung.extend, "worker-1")
    engine.dispose()


def write(attempt: Attempt, db: Session, name: str) -> None:
    note = Notification(id=name, kind="test", audience="admin", params={}, state="sent", created_at=attempt.now)
    db.add(note)


def rows(runner: Runner) -> Sequence[str]:
    with runner.sessions() as db:
        return db.scalars(select(Notification.id)).all()


def test_an_attempt_commits_the_effect_and_creates_the_follow_ups(runner: Runner, rung: list[Doorbell]) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, "one")
        return [FOLLOW_UP]

    assert run(runner, handler, JOB.id, "task-1", 55) == "succeeded"
    assert rows(runner) == ["one"]
    assert rung == [Doorbell("stripe:evt_1:notify", "tasks.notifications.send", "notifications")]


def test_a_handler_knows_the_deadline_of_its_attempt(runner: Runner) -> None:
    deadlines: list[float] = []

    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        deadlines.append(attempt.deadline - time.monotonic())
        return []

    run(runner, handler, JOB.id, "task-1", 55)
    assert 0 < deadlines[0] <= 55


def test_a_late_holder_and_the_next_holder_have_one_effect(runner: Runner, clock: Clock) -> None:
    """The holder stalls in its handler until its lease expires; another worker runs the job; the holder resumes."""

    def successor(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, "by the successor")
        return []

    def sleeper(attempt: Attempt, db: Session) -> list[FollowUp]:
        clock.forward(attempt.settings.lease_seconds + 1)
        assert run(runner, successor, JOB.id, "task-2", 55) == "succeeded"
        write(attempt, db, "by the sleeper")
        return []

    assert run(runner, sleeper, JOB.id, "task-1", 55) == "lost"
    assert rows(runner) == ["by the successor"]
    assert queries.stats(runner.store)["succeeded"] == 1


def test_if_a_late_holder_commits_first_the_next_holder_finishes_the_job(runner: Runner, clock: Clock) -> None:
    def sleeper(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, "by the sleeper")
        return [FOLLOW_UP]

    def successor(attempt: Attempt, db: Session) -> list[FollowUp]:
        runner._effect(sleeper, old, math.inf)  # the old holder commits while the new one works
        write(attempt, db, "by the successor")
        return []

    leased = runner.store.lease(JOB.id, "worker-0", 60)
    assert isinstance(leased, Lease)
    old: Lease = leased
    clock.forward(61)
    assert run(runner, successor, JOB.id, "task-2", 55) == "succeeded"
    with pytest.raises(LeaseLost):
        runner.store.finish(old)
    assert rows(runner) == ["by the sleeper"]
    assert queries.find_job(runner.store, "stripe:evt_1:notify") is not None


def test_an_attempt_after_a_crash_between_commit_and_finish_creates_the_same_follow_ups(
    runner: Runner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        calls.append(attempt.number)
        return [FOLLOW_UP]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        patch.setattr(Store, "release", lambda *_: [])  # as after SIGKILL: the job is not returned
        run(runner, handler, JOB.id, "task-1", 55)
    clock.forward(runner.settings.lease_seconds + 1)
    assert run(runner, handler, JOB.id, "task-2", 55) == "succeeded"
    assert calls == [1]
    found = queries.find_job(runner.store, "stripe:evt_1:notify")
    assert found is not None
    assert found["state"] == "pending"


def read_only_for(store: Store, seconds: float) -> None:
    """The store answers, but it takes no write, as one that has become a replica."""
    store.client.replicaof("127.0.0.1", "1")
    threading.Timer(seconds, store.client.replicaof, ("NO", "ONE")).start()


def silent_for(store: Store, seconds: float) -> None:
    store.client.client_pause(int(seconds * 1000))


@pytest.mark.parametrize("away", [read_only_for, silent_for])
@pytest.mark.parametrize(("seconds", "limit", "outcome"), [(1.5, 55, "succeeded"), (5, 2.5, "not finished")])
def test_a_store_that_is_away_after_the_commit_is_no_failure_of_the_job(
    runner: Runner,
    valkey: Valkey,
    *,
    clock: Clock,
    away: Callable[[Store, float], None],
    seconds: float,
    limit: float,
    outcome: str,
) -> None:
    """Not in its only attempt either. If it stays away, the next attempt finds the effect row."""

    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, f"attempt {attempt.number}")
        away(runner.store, seconds)
        return [FOLLOW_UP]

    quick = Store(connect(valkey.url, timeout_seconds=0.3), now_ms=clock)
    hasty = replace(runner, store=quick, settings=load({"MAX_ATTEMPTS": "1"}))
    assert run(hasty, handler, JOB.id, "task-1", limit) == outcome
    wait_until(lambda: not runner.store.write_error(), seconds=20, what="the store to take writes again")
    clock.forward(runner.settings.lease_seconds + 1)
    assert run(hasty, handler, JOB.id, "task-2", limit) == ("done" if outcome == "succeeded" else "succeeded")
    assert rows(runner) == ["attempt 1"]
    assert queries.find_job(runner.store, "stripe:evt_1:notify") is not None
    assert queries.stats(runner.store) | {"succeeded": 1, "dead": 0} == queries.stats(runner.store)


def test_a_job_whose_lease_did_not_arrive_runs_again_and_costs_no_attempt(
    runner: Runner, valkey: Valkey, clock: Clock
) -> None:
    line = LossyProxy(("127.0.0.1", valkey.port), about=JOB.id.encode())
    behind = Store(connect(line.url, timeout_seconds=5), now_ms=clock)
    behind.client.script_load(behind._scripts["lease"].script)
    cut_off = replace(runner, store=behind)
    line.lose = 2  # the request, and its repetition by the client
    with pytest.raises(StoreUnavailable):
        cut_off.lease(JOB.id, "task-1")
    assert line.lose == 0
    lease = runner.lease(JOB.id, "task-2")
    assert isinstance(lease, Lease)
    assert lease.attempt == 1


NOWHERE = ["sqlite:////nowhere/holdfast.db", "postgresql+psycopg://postgres@/test?host=/nowhere"]


@pytest.mark.parametrize("url", NOWHERE)
def test_a_database_that_is_away_is_no_failure_of_the_job(runner: Runner, clock: Clock, url: str) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, f"attempt {attempt.number}")
        db.flush()
        return []

    lost = replace(runner, sessions=make_sessions(make_engine(url)), settings=load({"MAX_ATTEMPTS": "1"}))
    for _ in range(3):
        assert run(lost, handler, JOB.id, "task-1", 55) == "put off"
        assert runner.lease(JOB.id, "task-2") == "early"
        clock.forward(runner.settings.retry_base_seconds)
    found = queries.find_job(runner.store, JOB.id)
    assert found is not None
    assert (found["reason"], found["attempts"]) == ("the database is not available", [])
    assert run(runner, handler, JOB.id, "task-3", 55) == "succeeded"
    assert rows(runner) == ["attempt 1"]


def test_a_failed_attempt_leaves_no_row_behind(runner: Runner) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, "half done")
        db.flush()
        raise TransientError("the peer is down")

    with pytest.raises(AttemptFailed, match="the peer is down"):
        run(runner, handler, JOB.id, "task-1", 55)
    assert rows(runner) == []
    with runner.sessions() as db:
        assert db.scalar(select(func.count()).select_from(Effect)) == 0


def test_a_replay_of_a_job_that_had_its_effect_changes_nothing(runner: Runner) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        write(attempt, db, f"attempt {attempt.number}")
        return []

    run(runner, handler, JOB.id, "task-1", 55)
    runner.store.replay(JOB.id, "ada")
    assert run(runner, handler, JOB.id, "task-2", 55) == "succeeded"
    assert rows(runner) == ["attempt 1"]


def test_an_effect_is_not_doubled_if_the_record_lost_the_attempt(runner: Runner) -> None:
    """As after a failover to a replica that had not received it: the job looks as if it was never leased."""

    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        calls.append(attempt.number)
        write(attempt, db, f"call {len(calls)}")
        return [FollowUp(f"notify {len(calls)}", "tasks.notifications.send")]

    calls: list[int] = []
    run(runner, handler, JOB.id, "task-1", 55)
    runner.store.client.flushall()
    runner.store.record(Event("stripe", "evt_1", "invoice.payment_failed", b"{}"), [JOB])
    assert run(runner, handler, JOB.id, "task-2", 55) == "succeeded"
    assert (calls, rows(runner)) == ([1, 1], ["call 1"])
    assert queries.find_job(runner.store, "stripe:evt_1:notify 1") is not None
    assert queries.find_job(runner.store, "stripe:evt_1:notify 2") is None


def test_a_postponed_job_is_due_later_and_its_attempts_do_not_count(
    runner: Runner, clock: Clock, rung: list[Doorbell]
) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        numbers.append(attempt.number)
        write(attempt, db, "half done")
        db.flush()
        raise NotNow("the agent is not called for a while", clock.ms + 60_000)

    numbers: list[int] = []
    for _ in range(20):
        assert run(runner, handler, JOB.id, "task-1", 55) == "put off"
        assert runner.lease(JOB.id, "task-2") == "early"
        clock.forward(60)
    found = queries.find_job(runner.store, JOB.id)
    assert found is not None
    assert (found["reason"], found["attempts"]) == ("the agent is not called for a while", [])
    assert (numbers, rows(runner), rung) == ([1] * 20, [], [])


def test_a_job_postponed_by_a_clock_that_is_behind_does_not_spin(runner: Runner, clock: Clock) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        raise NotNow("the agent's rate limit is reached", clock.ms - 5000)

    assert run(runner, handler, JOB.id, "task-1", 55) == "put off"
    found = queries.find_job(runner.store, JOB.id)
    assert found is not None
    assert found["due"] == clock.ms + 1000


def test_the_follow_ups_of_a_dead_letter_are_created(runner: Runner, rung: list[Doorbell]) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        raise GaveUp("the agent answered 410", [FOLLOW_UP])

    with pytest.raises(AttemptFailed):
        run(runner, handler, JOB.id, "task-1", 55)
    stats = queries.stats(runner.store)
    assert (stats["dead"], stats["unfinished"]) == (1, 1)
    assert rung == [Doorbell("stripe:evt_1:notify", "tasks.notifications.send", "notifications")]


def test_a_task_with_a_schedule_is_retried_by_it_and_knows_its_last_attempt(
    runner: Runner, store: Store, clock: Clock
) -> None:
    def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
        last.append(attempt.last)
        raise TransientError("the agent answered 503")

    last: list[bool] = []
    job = NewJob("stripe:evt_2:handoff", "tasks.handoff.deliver", "handoffs")
    store.record(Event("stripe", "evt_2", "invoice.paid", b"{}"), [job])
    schedule, waited = runner.settings.handoff_schedule, []
    for _ in range(len(schedule) + 1):
        with pytest.raises(AttemptFailed):
            run(runner, handler, job.id, "task-1", 55)
        found = queries.find_job(store, job.id)
        assert found is not None
        waited.append(found["due"] - clock.ms)
        clock.ms = found["due"]
    assert all(0.9 <= ms / 1000 / wanted <= 1.1 for ms, wanted in zip(waited, schedule, strict=False))
    found = queries.find_job(store, job.id)
    assert found is not None
    assert (found["state"], found["reason"]) == ("dead", "the agent answered 503")
    assert last == [False] * len(schedule) + [True]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermanentError("the invoice has no customer"), "the invoice has no customer"),
        (ValueError("no such mailbox: ada@example.com"), "ValueError at an unknown place"),
    ],
)
def test_only_texts_of_own_errors_are_recorded(error: Exception, text: str) -> None:
    assert describe(error) == text
