"""Any interleaving of calls and clocks on the real scripts: hypothesis searches for a history that breaks the record.

Each run uses another seed. A failing run prints it; HYPOTHESIS_SEED=… repeats the failure. To search for minutes:
`HYPOTHESIS_PROFILE=deep pytest --timeout 0 tests/integration/inbox/test_state_machine.py`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from dev.stack.servers import Valkey
from inbox import queries
from inbox.batch import BatchStore
from inbox.client import connect
from inbox.errors import LeaseLost
from inbox.event import Event
from inbox.job import BatchRequest, Doorbell, Lease, NewJob, NextJobRequest, StoredState
from inbox.retry import DeadLetter, RetryAt
from inbox.roundtrip import Command
from inbox.rules import Rules
from inbox.store import SCRIPTS
from inbox.wire import no_message, nonce
from tasks import broker
from tests.conftest import Clock
from tests.support import record_model
from tests.support.record_model import Model
from tests.support.searching import DEEP, SLOW

STEPS = settings(  # shrinking a failure takes minutes
    SLOW,
    max_examples=1000 if DEEP else 100,
    stateful_step_count=80 if DEEP else 40,
    phases=[Phase.generate],
    database=None,
)
SEED = int(os.environ.get("HYPOTHESIS_SEED") or secrets.randbits(32))
LEASE_SECONDS = 60
RULES = Rules(max_attempts=3)
QUEUES = ("payments", "fulfilment")
HOLDERS = ("host-1/1", "host-1/2", "host-2/1")
WORKERS = ("host-1", "host-2", "host-3")
WORKER_TIMEOUT_MS = int(RULES.worker_timeout_seconds * 1000)
DAYS = 86400
KEYS = ["", "sub_1", "sub_1", "sub_2"]
HOUR = 3600
JUMPS = [-HOUR, -2, 1, 4, 6, 11, LEASE_SECONDS - 1, LEASE_SECONDS, LEASE_SECONDS + 1, HOUR, 3 * DAYS, 30 * DAYS]

events = st.sampled_from(["evt_1", "evt_2", "evt_3", "evt_4"])
some = st.integers(0, 50)  # selects one of the existing items
specs = st.lists(
    st.tuples(st.sampled_from(QUEUES), st.sampled_from(KEYS), st.sampled_from([0, 0, 5, HOUR // 2, 3 * DAYS])),
    max_size=3,
)


class LossyStore(BatchStore):
    """The record over a connection that may lose the first reply to each call, so that the client sends it again."""

    lost = False

    def on_call(self) -> None:
        self.exchange(None)

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        if self.lost:
            super()._execute(commands)
        return super()._execute(commands)


@dataclass
class Known:
    """What the test knows beside the record: its expected state, and which doorbells were returned."""

    model: Model = field(default_factory=lambda: Model(RULES.max_attempts))
    marks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUEUES, 0))  # newest due of a leased job
    holding: dict[str, int] = field(default_factory=dict)  # leased jobs, and the end of each lease
    given: list[Lease] = field(default_factory=list)
    rung: set[str] = field(default_factory=set)  # jobs whose doorbell was returned and that have not been leased since
    before: dict[str, StoredState] = field(default_factory=dict)


class History(RuleBasedStateMachine):
    """Calls of the store, each compared with the model."""

    leases: Bundle[Lease] = Bundle("leases")  # all leases ever returned; most are stale after a while

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client
        self.client.flushall()
        self.clock = Clock()
        self.known, self.replica = Known(), (Known(), record_model.dump(client))
        self.tokens: set[tuple[str, int]] = set()  # all tokens ever returned, also those that were not replicated
        self.failovers, self.latest = 0, self.clock.ms
        self.by_a_person = False

    @property
    def model(self) -> Model:
        return self.known.model

    @initialize(same_server=st.booleans())
    def begin(self, same_server: bool) -> None:
        """With the broker in the same Redis, the script pushes the doorbells and does not return them."""
        self.same_server = same_server
        message = broker.task_message if same_server else no_message
        self.store = LossyStore(self.client, RULES, message=message, now_ms=self.clock)
        self._load_scripts()

    # --- the calls ----------------------------------------------------------------------------------------------------

    @rule()
    def replies_get_lost(self) -> None:
        """Until this rule runs again, every call runs twice."""
        self.store.lost = not self.store.lost

    @rule()
    def a_replica_receives(self) -> None:
        """The replica receives everything up to now."""
        self.replica = deepcopy(self.known), record_model.dump(self.client)

    @rule()
    def the_replica_takes_over(self) -> None:
        """What was not replicated never happened, except for the leases, whose holders still work. Time has passed: no
        clock that goes back meets the exact millisecond of an earlier lease: see the tokens in lease.lua."""
        known, kept = self.replica
        self.known = deepcopy(known)
        record_model.restore(self.client, kept)
        self.failovers += 1
        newest = max([self.clock.ms, *(token for _, token in self.tokens)])
        self.clock.ms = newest // 1000 * 1000 + 1000 + self.failovers * 13
        self._expire_holdings()

    @rule(event=events, specs=specs)
    def record(self, event: str, specs: list[tuple[str, str, int]]) -> None:
        new = self._jobs(event, "job", specs)
        accepted = queries.stats(self.store)["accepted"]
        bells = self.store.record(Event("stripe", event, "invoice.paid", b"{}"), new)
        fresh = queries.stats(self.store)["accepted"] > accepted
        if fresh:
            self.model.forget(event, self.clock.ms)
        assert fresh == self.model.record(event, new, self.clock.ms)
        assert (bells is not None) == (fresh and not self.store.lost)
        self.model.counts["duplicates"] += self.store.lost
        self._rung(bells or [], new if fresh else [])

    @precondition(lambda self: self.model.jobs)
    @rule(target=leases, which=some, holder=st.sampled_from(HOLDERS))
    def lease(self, which: int, holder: str) -> Any:
        return self._lease(self._one(which), holder) or multiple()

    @rule(target=leases)
    def all_jobs_are_leased(self) -> Any:
        """As many busy workers do, so that they compete for ordering keys."""
        return multiple(*filter(None, [self._lease(name, "host-1/3") for name in sorted(self.model.jobs)]))

    @rule(target=leases)
    def all_jobs_are_leased_by_a_clock_that_is_ahead(self) -> Any:
        self.time_passes(HOUR)
        given = self.all_jobs_are_leased()
        self.time_passes(-HOUR)
        return given

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        if self._changed(lease, lambda: self._renew(lease), ends=False):
            self.known.holding[lease.job_id] = self.clock.ms + LEASE_SECONDS * 1000
            self.model.jobs[lease.job_id].until = self.clock.ms + LEASE_SECONDS * 1000

    @rule(lease=leases, specs=specs)
    def finish(self, lease: Lease, specs: list[tuple[str, str, int]]) -> None:
        follow_ups = self._jobs(lease.event_id, f"after-{lease.job_id[-1]}", specs[:1])
        if self.model.finished(lease):
            before = record_model.content(self.client)
            assert self.store.finish(lease, follow_ups) == []
            assert record_model.content(self.client) == before
        elif self._changed(lease, lambda: self.store.finish(lease, follow_ups)):
            self._rung([], follow_ups)
            self.model.jobs[lease.job_id].state = StoredState.SUCCEEDED
            self.model.create(lease.event_id, follow_ups, self.clock.ms)

    @rule(target=leases, lease=leases, queue=st.sampled_from(QUEUES))
    def finish_and_lease(self, lease: Lease, queue: str) -> Any:
        """Also lease the job that has waited for the finished one's ordering key, or that of the next doorbell in the
        broker's list, even if the finished lease was stale."""
        self.client.delete(
            "{holdfast}:unlocked:host-2/1"
        )  # of a holder that finished a job and did not ask for another
        rung: Any = self.client.lindex(queue, -1)
        finished, held = self.model.finished(lease), self.model.held(lease)
        unlocked = self._unlocked(lease, queue) if held else None
        if held:
            self.model.jobs[lease.job_id].state = StoredState.SUCCEEDED
            self.model.jobs[lease.job_id].suspect = False
            self.known.holding.pop(lease.job_id, None)
        name = unlocked or (msgspec.json.decode(rung)["headers"]["argsrepr"][2:-2] if rung else None)
        word = self._expected(name) if name in self.model.jobs else "unknown" if name else "none"
        if not (held or self.same_server):
            return multiple()
        bells, found = self.store.finish_and_lease(
            lease, [], NextJobRequest("host-2/1", LEASE_SECONDS, queue, ["tasks.a"], nonce())
        )
        assert isinstance(bells, LeaseLost) != (held or finished)
        self._rung(bells if isinstance(bells, list) else [])
        return self._leased(found, name or "", word, "host-2/1") or multiple()

    @rule(
        target=leases,
        number=st.integers(0, 3),
        holder=st.sampled_from(HOLDERS),
        polls=st.booleans(),
        suspects=st.integers(0, 1),
        announced=st.booleans(),
    )
    def lease_next(self, number: int, holder: str, polls: bool, suspects: int, announced: bool) -> Any:
        """As a worker with slots does: the oldest jobs of the queues in turn. While it polls, no doorbell is rung."""
        tasks = {queue: ["tasks.a"] for queue in QUEUES}
        known: Any = [name for queue in QUEUES for name in self.client.zrange(f"{{holdfast}}:rung:{queue}", 0, -1)]
        ids = [name.decode() for name in known] if announced else []  # they get no second lease
        waiting: Any = [self.client.zrange(f"{{holdfast}}:rung:{queue}", 0, -1) for queue in QUEUES]
        batch = self.store.exchange(
            BatchRequest(holder, LEASE_SECONDS, tasks, number, nonce(), polls, suspects > 0, ids)
        )
        assert batch is not None
        replies, given = list(batch.leases), []
        turns = [name.decode() for names in zip_longest(*waiting) for name in names if name]
        for name in self._until_leased(turns, number):
            if self.model.jobs[name].suspect and not suspects:
                continue
            suspects -= self.model.jobs[name].suspect
            word = self._expected(name)
            lease = self._leased(replies.pop(0) if word == "leased" else word, name, word, holder)
            given += [lease] if lease else []
        assert replies == []
        assert {bell.job_id for bell in batch.bells} <= self.known.rung
        return multiple(*given)

    @rule(lease=leases, seconds=st.sampled_from([-5, 0, 5, 3600, 3 * DAYS]))
    def fail(self, lease: Lease, seconds: int) -> None:
        due = self.clock.ms + seconds * 1000
        if self._changed(lease, lambda: self.store.fail(lease, "the peer is down", RetryAt(due))):
            self.model.jobs[lease.job_id].state, self.model.jobs[lease.job_id].due = StoredState.PENDING, due

    @rule(lease=leases, specs=specs)
    def fail_for_good(self, lease: Lease, specs: list[tuple[str, str, int]]) -> None:
        left = self._jobs(lease.event_id, f"left-{lease.job_id[-1]}", specs[:1])
        if self._changed(lease, lambda: self.store.fail(lease, "no such field", DeadLetter("permanent"), left)):
            self._rung([], left)
            self.model.jobs[lease.job_id].state = StoredState.DEAD
            self.model.create(lease.event_id, left, self.clock.ms)

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        if self._changed(lease, lambda: self.store.release(lease)):
            job = self.model.jobs[lease.job_id]
            job.state, job.tries = StoredState.PENDING, job.tries - 1

    @rule(lease=leases, seconds=st.sampled_from([-5, 0, 5, 3 * DAYS]))
    def postpone(self, lease: Lease, seconds: int) -> None:
        """The attempt is neither counted nor kept."""
        due, traces = self.clock.ms + seconds * 1000, self._traces(lease)
        if self._changed(lease, lambda: self.store.postpone(lease, "its turn is later", due)):
            job = self.model.jobs[lease.job_id]
            job.state, job.tries, job.due = StoredState.PENDING, job.tries - 1, due
            assert self._traces(lease) == traces - 1

    @rule(limit=st.integers(1, 5), room=st.integers(-1, 2))
    def sweep(self, limit: int, room: int) -> None:
        self._sweep(limit, room)

    @rule(holder=st.sampled_from(HOLDERS))
    def a_process_dies(self, holder: str) -> None:
        self._lost(self.model.end_leases(holder, self.clock.ms), self.store.end_leases(holder))

    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_reports(self, worker: str) -> None:
        """The others have died, or are only late, or the clock has been set."""
        lost = self.model.heartbeat(worker, self.clock.ms, WORKER_TIMEOUT_MS)
        holders, bells = self.store.heartbeat(worker)
        self._lost(lost, bells)
        held = [job.holder for job in self.model.jobs.values() if job.state is StoredState.RUNNING]
        assert sorted(holders) == sorted(it for it in held if record_model.worker_of(it) == worker)

    @precondition(lambda self: self.model.jobs)
    @rule(which=some)
    def replay(self, which: int) -> None:
        name = self._one(which)
        job = self.model.jobs[name]
        answer = self.store.replay(name, "ada")
        if job.unfinished:
            assert answer == "unfinished"
            return
        bells = [] if self._polled(job.queue) else [Doorbell(name, "tasks.a", job.queue)]
        assert answer == ("unfinished" if self.store.lost else bells)
        self._rung(answer if isinstance(answer, list) else [])
        job.state, job.tries, job.lost, job.due = StoredState.PENDING, 0, 0, self.clock.ms
        self.by_a_person = True

    @precondition(lambda self: self.model.jobs)
    @rule(which=some)
    def replay_dead_only(self, which: int) -> None:
        """As a bulk replay does: only dead jobs are replayed."""
        name = self._one(which)
        state = self.model.jobs[name].state
        if state is StoredState.DEAD:
            self.replay(which)
        else:
            assert self.store.replay(name, "ada", only="dead") == (
                "unfinished" if self.model.jobs[name].unfinished else state
            )

    @precondition(lambda self: self.model.jobs)
    @rule(which=some)
    def discard(self, which: int) -> None:
        name = self._one(which)
        job = self.model.jobs[name]
        words = {
            StoredState.DEAD: "already" if self.store.lost else "",
            StoredState.SUCCEEDED: "done",
            StoredState.DISCARDED: "already",
        }
        before = record_model.content(self.client)
        word = self.store.discard(name, "ada", "a test order")
        assert word == words.get(job.state, "unfinished")
        if job.state is not StoredState.DEAD:
            assert record_model.content(self.client) == before
            return
        job.state, self.by_a_person = StoredState.DISCARDED, True

    @rule(seconds=st.sampled_from(JUMPS))
    def time_passes(self, seconds: int) -> None:
        self.clock.forward(seconds)
        self.latest = max(self.latest, self.clock.ms)
        self._expire_holdings()

    @rule()
    def expired_keys_are_deleted(self) -> None:
        """The server expires keys by its own clock, which does not move with the test's: so the test deletes them."""
        keys: Any = self.client.keys("*")
        aged = [key for key in keys if 0 < self.client.pexpiretime(key) <= self.clock.ms]
        if aged:
            self.client.delete(*aged)
        for event in self.model.events.keys() - self.model.aged:
            if not self.client.exists(f"{{holdfast}}:event:stripe:{event}"):
                self.model.age(event)
        self.known.before = {name: it for name, it in self.known.before.items() if name in self.model.jobs}

    # --- what is true after each of them ------------------------------------------------------------------------------

    @invariant()
    def the_record_is_consistent_and_matches_the_model(self) -> None:
        record = record_model.read(self.client)
        self.latest = max(self.latest, self.clock.ms)
        record_model.check(record, self.clock.ms, self.model.gone, latest=self.latest)
        states = {name: StoredState(job["state"]) for name, job in record.jobs.items()}
        record_model.check_moves(self.known.before, states, by_a_person=self.by_a_person)
        assert states == {name: job.state for name, job in self.model.jobs.items()}
        assert {**record.counts, **+self.model.counts} == record.counts
        self.known.before, self.by_a_person = states, False

    @invariant()
    def jobs_marked_as_rung_were_rung(self) -> None:
        rung = {name for names in record_model.read(self.client).rung.values() for name in names}
        if self.store.lost or any(map(self._polled, QUEUES)):
            self.known.rung |= rung
        assert rung <= self.known.rung

    def teardown(self) -> None:
        """After any history, a few small sweeps later every job is done."""
        if not hasattr(self, "store"):
            return
        self.store.lost = False
        self.time_passes(40 * DAYS)
        for _ in range(4 * len(self.model.jobs) + 4):
            self.time_passes(RULES.ring_again_seconds + 1)
            for bell in self._sweep(2, 1):
                self._work(bell.job_id)
        assert not [name for name, job in self.model.jobs.items() if job.unfinished]
        self.the_record_is_consistent_and_matches_the_model()

    def _unlocked(self, lease: Lease, queue: str) -> str | None:
        """The first job of this queue that waits for the end of the leased one, if host-2/1 holds that."""
        job = self.model.jobs[lease.job_id]
        waiting: Any = self.client.zrange(f"{{holdfast}}:waiting:{job.key}", 0, 0)
        first = waiting[0].decode() if waiting and job.holder == "host-2/1" else None
        return first if first and self.model.jobs[first].queue == queue else None

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _load_scripts(self) -> None:
        """A new server runs the lease of `finish_and_lease` before the finish if it does not know the finish: allowed
        (the answer to the next doorbell is then "busy" or "waiting"), but the model expects them in order."""
        for name in SCRIPTS:
            self.client.execute_command(*self.store.load_command(name))

    def _one(self, which: int) -> str:
        names = sorted(self.model.jobs)
        return names[which % len(names)]

    def _jobs(self, event: str, word: str, specs: list[tuple[str, str, int]]) -> list[NewJob]:
        return [
            NewJob(f"stripe:{event}:{word}-{n}", "tasks.a", queue, {}, delay, key)
            for n, (queue, key, delay) in enumerate(specs)
        ]

    def _rung(self, bells: list[Doorbell], new: Sequence[NewJob] = ()) -> None:
        """Messages of new jobs count as doorbells: the script pushed them to the broker in the same step."""
        assert len(set(bells)) == len(bells)
        ready_made = {job.id for job in new if self.same_server and not job.delay_seconds}
        assert not ready_made & {bell.job_id for bell in bells}
        self.known.rung |= ready_made | {bell.job_id for bell in bells}

    def _traces(self, lease: Lease) -> int:
        fields: Any = self.client.hkeys(f"{{holdfast}}:job:{lease.job_id}")
        return sum(field.startswith(b"attempt:") for field in fields)

    def _changed(self, lease: Lease, change: Callable[[], list[Doorbell]], *, ends: bool = True) -> bool:
        """True if the change was accepted. A stale token must change not one byte."""
        if self.model.held(lease):
            with suppress(*[LeaseLost] * self.store.lost):  # as the second of two runs raises
                self._rung(change())
            self.known.holding.pop(lease.job_id, None)
            job = self.model.jobs[lease.job_id]
            job.suspect = job.suspect and not ends
            return True
        before = record_model.content(self.client)
        with pytest.raises(LeaseLost):
            change()
        assert record_model.content(self.client) == before
        return False

    def _lost(self, names: set[str], bells: list[Doorbell]) -> None:
        """These jobs lost their leases: those that are due must be rung at once, unless the reply was lost."""
        self._rung(bells)
        due = {
            name
            for name in names
            for job in [self.model.jobs[name]]
            if job.state is StoredState.PENDING and job.due <= self.clock.ms and not self._polled(job.queue)
        }
        assert self.store.lost or due <= {bell.job_id for bell in bells}
        for name in names:
            self.known.holding.pop(name, None)

    def _sweep(self, limit: int, room: int) -> list[Doorbell]:
        """How many expired leases a sweep finds depends on its limit: the model follows it, within the rules."""
        still = {queue: self._not_overtaken(queue) for queue in QUEUES}
        bells = self.store.sweep(limit, dict.fromkeys(QUEUES, room))
        self._rung(bells)
        for queue in QUEUES:
            assert len(still[queue] & {bell.job_id for bell in bells}) <= max(room, 0), "no queue is flooded"
        for name, job in self.model.jobs.items():
            if job.state is StoredState.RUNNING and self.client.hget(f"{{holdfast}}:job:{name}", "state") != b"leased":
                assert job.until <= self.clock.ms
                self.model.expire(job, self.clock.ms)
        assert all(self.model.jobs[bell.job_id].state is StoredState.PENDING for bell in bells)
        return bells

    def _polled(self, queue: str) -> bool:
        """No doorbell is needed, because a worker will ask for jobs within a second."""
        quiet: Any = self.client.hget(f"{{holdfast}}:slots:{queue}", "quiet") or 0
        return self.clock.ms < int(quiet) <= self.clock.ms + 1000

    def _until_leased(self, names: Sequence[str], number: int) -> Iterator[str]:
        """The jobs that are tried in this order, until `number` have been leased."""
        before = len(self.known.given)
        for name in names:
            if len(self.known.given) - before < number:
                yield name

    def _mark(self, queue: str) -> int:
        """A time in the future comes from a clock that was wrong."""
        return self.known.marks[queue] if self.known.marks[queue] <= self.clock.ms else 0

    def _not_overtaken(self, queue: str) -> set[str]:
        """Jobs whose doorbell is probably still in the queue, without those that an ordering key's holder rings for."""
        waiting = {name for names in record_model.read(self.client).waiting.values() for name in names}
        rung: Any = self.client.zrange(f"{{holdfast}}:rung:{queue}", 0, -1, withscores=True)
        return {name.decode() for name, again in rung if again > self._mark(queue)} - waiting

    def _renew(self, lease: Lease) -> list[Doorbell]:
        self.store.renew(lease, LEASE_SECONDS)
        return []

    def _expected(self, name: str) -> str:
        """The expected result of leasing the job now."""
        return self.model.lease(name, self.clock.ms, record_model.read(self.client).scheduled)

    def _lease(self, name: str, holder: str) -> Lease | None:
        expected = self._expected(name)
        return self._leased(self.store.lease(name, holder, LEASE_SECONDS), name, expected, holder)

    def _leased(self, lease: Lease | str, name: str, expected: str, holder: str) -> Lease | None:
        """Check the result of leasing the job `name`: `expected` is 'leased' or the reason why not."""
        if expected in ("leased", "waiting"):
            self.known.rung.discard(name)
        if isinstance(lease, str):
            assert lease == expected
            return None
        assert expected == "leased"
        assert lease.first == (self.model.jobs[name].token == 0 and not self.store.lost)
        self._hold(name)
        assert all(lease.token > old.token for old in self.known.given if old.job_id == name)
        assert (name, lease.token) not in self.tokens
        self.model.leased(name, lease, holder, self.clock.ms + LEASE_SECONDS * 1000)
        job = self.model.jobs[name]
        self.known.marks[job.queue] = max(self._mark(job.queue), job.due)
        assert lease.attempt == self.model.jobs[name].tries
        self.known.given.append(lease)
        self.tokens.add((name, lease.token))
        return lease

    def _hold(self, name: str) -> None:
        """No other worker holds the job, or another one with its ordering key, by any clock so far."""
        key = self.model.jobs[name].key
        assert not [job for job in self.known.holding if job == name or (key and self.model.jobs[job].key == key)]
        self.known.holding[name] = self.clock.ms + LEASE_SECONDS * 1000

    def _expire_holdings(self) -> None:
        """An expired lease may be lost from now on, even if the clock goes back."""
        self.known.holding = {name: until for name, until in self.known.holding.items() if until > self.clock.ms}

    def _work(self, name: str) -> None:
        lease = self._lease(name, "host-1/1")
        if lease:
            self.finish(lease, [])


@pytest.mark.slow
def test_no_history_of_calls_and_clocks_breaks_the_record(valkey: Valkey) -> None:
    client = connect(valkey.url, timeout_seconds=5)
    print(f"HYPOTHESIS_SEED={SEED}")
    machine: Any = seed(SEED)(lambda: History(client))
    run_machine(machine, settings=STEPS)
