"""The durable record in Redis. Each change is one named atomic script in scripts/, whose head says what it guards.

Knows Redis; knows neither Flask nor Celery. Every method raises StoreUnavailable when Redis cannot be reached, is full,
is loading or is read-only; nothing is ever half changed then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from inbox import sentinel, wire
from inbox.errors import LeaseLost, StoreUnavailable
from inbox.event import Event, NewEvent
from inbox.job import Doorbell, Lease, NewJob, NextJobRequest
from inbox.memory_guard import MemoryGuard
from inbox.retry import DeadLetter, RetryAt
from inbox.roundtrip import Command, confirmed, execute, store_unavailable, translate_errors
from inbox.wire import Message
from settings import sentinel_url

PREFIX = "{holdfast}:"
SCRIPTS = ("record", "lease", "renew", "finish", "fail", "release", "sweep", "replay", "discard", "find", "save_alerts")
DAY_MS = 86_400_000

REPLICA_MS = 500  # how long a replica may take to confirm: within the time for one answer, fsync and all


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers the scripts go by. A doorbell nobody answered is rung again after ring_again_seconds."""

    max_attempts: int = 15
    retention_days: int = 35  # Stripe resends for up to 30 days; an id must outlive that
    payload_days: int = 7  # after success
    ring_again_seconds: int = 10


# Of one arrival: whom to ring; None, it was known already; or why the store did not take it.
Outcome = list[Doorbell] | None | StoreUnavailable


def no_message(_job: NewJob) -> bytes:
    return b""


def connect(url: str, *, timeout_seconds: float = 0.8) -> redis.Redis:
    """A client that answers or fails within twice `timeout_seconds`: once to connect, if need be, and once to ask.

    A connection that went stale is noticed at once, and replaced. A server that takes too long is not asked again.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if behind := sentinel_url.parse(url):
        return sentinel.client(behind, timeout_seconds=timeout_seconds, **options)
    return redis.Redis.from_url(url, **options)


class Store:
    """The inbox. `message` makes doorbells for a broker in the same Redis; `now_ms` replaces the server's clock.

    What is recorded or replayed is in `replicas_ack` replicas before the answer (docs/decisions/0005).
    """

    def __init__(
        self,
        client: redis.Redis,
        rules: Rules | None = None,
        *,
        message: Message = no_message,
        replicas_ack: int = 0,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.client = client
        self._message, self.replicas_ack, self._now_ms = message, replicas_ack, now_ms
        rules = rules or Rules()
        self._rules = (
            rules.ring_again_seconds * 1000,
            rules.max_attempts,
            rules.retention_days * DAY_MS,
            rules.payload_days * DAY_MS,
        )
        self._memory_guard = MemoryGuard(self.memory)
        self._scripts = {name: client.register_script(wire.script_source(name)) for name in SCRIPTS}

    def record(
        self, event: Event, jobs: Sequence[NewJob], secret: str = "", *, counted: str = "accepted"
    ) -> list[Doorbell] | None:
        """Record an event with its jobs, once. None: it was known already, and nothing changed.

        `secret` names the one that proved who sent it, never tells it; its use is counted either way.
        A new one is `counted` by how it came: accepted (delivered), missed (found at its sender), due (by our clock).
        Otherwise whom to ring: nobody, where the ready-made messages went to the broker in the same step.
        """
        (outcome,) = self.record_all([NewEvent(event, jobs, secret)], counted=counted)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    def record_all(self, arrivals: Sequence[NewEvent], *, counted: str = "accepted") -> list[Outcome]:
        """Record each of them, in one step and with one fsync; for each, what `record` would answer or raise."""
        try:
            self.check_memory()
            answers = self._run_confirmed("record", counted, *wire.event_args(arrivals, self._message))
        except StoreUnavailable as error:
            return [error for _ in arrivals]
        return [wire.parse_record(answer) for answer in answers]

    # What inbox/recorder.py makes the same of, in an event loop.

    def check_memory(self) -> None:
        """Raises StoreUnavailable where only the workers should write now. The first call asks the store."""
        self._memory_guard.check()

    def record_commands(self, arrivals: Sequence[NewEvent]) -> list[Command]:
        """What asks for `record_all` of arrivals that were delivered."""
        return [self._command("record", "accepted", *wire.event_args(arrivals, self._message)), *self._wait()]

    def load_command(self, name: str) -> Command:
        """What makes a script known to a server that is new, or has just become master."""
        return ("SCRIPT", "LOAD", self._scripts[name].script)

    def lease(self, job_id: str, holder: str, lease_seconds: float, task_id: str = "") -> Lease | str:
        """Claim a job, or say in one word why not: unknown, done, busy, early, waiting."""
        return wire.parse_lease(self._run("lease", job_id, holder, int(lease_seconds * 1000), wire.nonce(), task_id))

    def renew(self, lease: Lease, lease_seconds: float) -> None:
        """Keep a lease for `lease_seconds` from now. Raises LeaseLost if somebody else holds the job."""
        if not self._run("renew", lease.job_id, lease.token, int(lease_seconds * 1000)):
            raise LeaseLost(lease.job_id)

    def finish(self, lease: Lease, follow_ups: Sequence[NewJob] = ()) -> list[Doorbell]:
        """The job succeeded; its follow-ups exist from here on. Raises LeaseLost. Returns whom to ring."""
        return self._settled(lease, self._run("finish", lease.job_id, lease.token, *self._flat(follow_ups)))

    def finish_and_lease(
        self, lease: Lease, follow_ups: Sequence[NewJob], wish: NextJobRequest
    ) -> tuple[list[Doorbell] | LeaseLost | StoreUnavailable, Lease | str]:
        """What `finish` returns or raises, and the job of the next doorbell, by the same round trip and fsync.

        No job but a word, where there is none, or where the broker is another server.
        """
        if self._message is no_message:
            return self.finish(lease, follow_ups), "none"
        asked = ("", wish.holder, int(wish.lease_seconds * 1000), wire.nonce(), "", wish.queue, *wish.tasks)
        with translate_errors():
            finished, found = self._answers(
                [("finish", (lease.job_id, lease.token, *self._flat(follow_ups))), ("lease", asked)]
            )
        if isinstance(found, redis.RedisError):  # what one of the two did is done, whatever became of the other
            found = [b"none"]
        if isinstance(finished, redis.RedisError):
            return store_unavailable(finished), wire.parse_lease(found)
        return LeaseLost(lease.job_id) if finished[0] == b"stale" else wire.parse_doorbells(
            finished[1:]
        ), wire.parse_lease(found)

    def fail(
        self, lease: Lease, reason: str, fate: RetryAt | DeadLetter, left: Sequence[NewJob] = ()
    ) -> list[Doorbell]:
        """The attempt failed for `reason` (no personal data); a buried job's `left` jobs exist from here on.

        Raises LeaseLost. Returns whom to ring."""
        due = fate.due_ms if isinstance(fate, RetryAt) else ""
        return self._settled(lease, self._run("fail", lease.job_id, lease.token, reason, due, *self._flat(left)))

    def release(self, lease: Lease) -> list[Doorbell]:
        """Give the job back uncounted, for somebody else to do now. Raises LeaseLost. Returns whom to ring."""
        return self._released(lease, "the worker was told to stop", "")

    def postpone(self, lease: Lease, reason: str, due_ms: int) -> list[Doorbell]:
        """Give the job back uncounted, due at that time. Raises LeaseLost. Returns whom to ring."""
        return self._released(lease, reason, due_ms)

    def sweep(self, limit: int, room: Mapping[str, int]) -> list[Doorbell]:
        """Whom to ring again: at most `limit` jobs that are due or orphaned; for each queue at most `limit` that later
        ones have overtaken, and at most `room` others that nobody answered."""
        pairs = [value for queue, free in room.items() for value in (queue, max(free, 0))]
        return wire.parse_doorbells(self._run("sweep", limit, *pairs))

    def replay(self, job_id: str, by: str, *, only: str = "") -> list[Doorbell] | str:
        """Run a final job again, or say in one word why not: unknown, owed (it will run anyway), pruned; or its state,
        where it is run again from `only` one."""
        return self._by_a_person("replay", job_id, by, only)

    def discard(self, job_id: str, by: str, why: str) -> str:
        """Put a dead letter away; or say in one word why not: unknown, owed, done, already. Empty if it was done."""
        word = self._by_a_person("discard", job_id, by, why)
        return word if isinstance(word, str) else ""

    def save_alerts(self, version: int, state: str, arrival: NewEvent | None) -> list[Doorbell] | str:
        """Write down how the alarms stand, and owe the event that tells of it; inbox/alert_state.py says how."""
        owed = wire.event_args([arrival] if arrival else [], self._message)
        return wire.parse_result(self._run("save_alerts", version, state, *owed))

    def find(self, *args: Any) -> Any:
        """Search events or dead letters; inbox/find.py says how."""
        return self._run("find", *args)

    def count(self, deliveries: Mapping[str, int]) -> None:
        """Add to the counts of what happened to deliveries: `rejected:<source>:<reason>`, …: inbox/queries.py."""
        with translate_errors(), self.client.pipeline(transaction=False) as pipe:
            for name, times in deliveries.items():
                pipe.hincrby(PREFIX + "deliveries", name, times)
            rejected = sum(times for name, times in deliveries.items() if name.startswith("rejected:"))
            pipe.hincrby(PREFIX + "counts", "rejected", rejected)
            pipe.execute()

    def now_ms(self) -> int:
        """The store's clock, the one all workers share."""
        if self._now_ms:
            return self._now_ms()
        with translate_errors():
            seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def memory(self) -> tuple[int, int]:
        """(bytes the server uses, bytes it may use; 0: no limit)."""
        with translate_errors():
            found: Any = self.client.info("memory")
        return int(found["used_memory"]), int(found["maxmemory"])

    def write_error(self) -> str:
        """What the server says against a write now, as it is full or a replica; empty if it takes it."""
        with translate_errors():
            (answer,) = self._sent([("SET", PREFIX + "probe", "")])
        return str(answer) if isinstance(answer, redis.RedisError) else ""

    def replicas(self) -> int:
        """How many replicas confirm what is written now; it waits for no more than `replicas_ack` of them."""
        with translate_errors():
            return int(self._ran([], ("SET", PREFIX + "probe", ""), ("WAIT", self.replicas_ack, REPLICA_MS))[1])

    def _by_a_person(self, name: str, *args: Any) -> list[Doorbell] | str:
        return wire.parse_result(self._run_confirmed(name, *args))

    def _run(self, name: str, *args: Any) -> Any:
        with translate_errors():
            return self._ran([(name, args)])[0]

    def _run_confirmed(self, name: str, *args: Any) -> Any:
        """The answer of a script that is a promise."""
        try:
            with translate_errors():
                return confirmed(self._answers([(name, args)], *self._wait()), self.replicas_ack)
        except StoreUnavailable:
            if self.replicas_ack:
                # Perhaps a master that nobody follows any more: new connections ask the Sentinels who it is now.
                self.client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _wait(self) -> list[Command]:
        return [("WAIT", self.replicas_ack, REPLICA_MS)] if self.replicas_ack else []

    def _ran(self, calls: Sequence[tuple[str, Sequence[Any]]], *after: Command) -> list[Any]:
        """The answers of these scripts, in one round trip, and of the commands `after` them. Raises the first error."""
        answers = self._answers(calls, *after)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        return answers

    def _answers(self, calls: Sequence[tuple[str, Sequence[Any]]], *after: Command) -> list[Any]:
        """The same, with errors in the place of answers."""
        commands = [self._command(name, *args) for name, args in calls]
        answers = self._sent([*commands, *after])
        missed = [n for n, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
        if missed:
            for name in {calls[n][0] for n in missed}:  # a new server, or one that has just become master, knows none
                self.client.script_load(self._scripts[name].script)
            again = self._sent([*(commands[n] for n in missed), *after])
            for n, answer in zip([*missed, *range(len(commands), len(answers))], again, strict=True):
                answers[n] = answer
        return answers

    def _sent(self, commands: Sequence[Command]) -> list[Any]:
        return execute(self.client, commands)

    def _command(self, name: str, *args: Any) -> Command:
        now = self._now_ms() if self._now_ms else ""
        return ("EVALSHA", self._scripts[name].sha, 1, PREFIX, now, *self._rules, *args)

    def _flat(self, jobs: Iterable[NewJob]) -> list[Any]:
        return wire.job_args(jobs, self._message)

    def _released(self, lease: Lease, reason: str, due: int | str) -> list[Doorbell]:
        return self._settled(lease, self._run("release", lease.job_id, lease.token, reason, due))

    def _settled(self, lease: Lease, reply: list[bytes]) -> list[Doorbell]:
        if reply[0] == b"stale":
            raise LeaseLost(lease.job_id)
        return wire.parse_doorbells(reply[1:])
