"""One chaos run on one pair of broker and database: traffic and disturbances together, then quiet, then the count."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import redis
import requests
from sqlalchemy import Connection, text

from dev.chaos.monkey import Monkey
from dev.chaos.plan import Disturbance, length_seconds, make_plan
from dev.chaos.plot import plot
from dev.chaos.report import Result
from dev.chaos.world import API_KEY, SECRET, World
from dev.harness import checker, mails, write_log
from dev.harness.sender import Sender
from dev.harness.timing import Done, Effect, delays, recoveries, spread
from dev.harness.traffic import DUPLICATES, Traffic, make_traffic
from dev.simulators.pdf import document_pdf

PER_SECOND = 16.0  # deliveries at most: on two cores, more would measure how long a queue is, and not a recovery
EFFECT_TIMES = "SELECT job_id, done_at FROM effects ORDER BY done_at"
DOCUMENT_IDS = "SELECT id, document_id FROM documents"
FAILED_DOCUMENTS = "SELECT count(*) FROM documents WHERE status = 'failed'"  # each leaves a dead letter, for a retry
# These happen as soon as they can. A retry of a payment waits for its time, which does not depend on our speed.
AT_ONCE = frozenset(
    {
        *("payments.payment_failed", "notify.payment_failed", "fulfilment.checkout_completed", "notify.receipt"),
        *("documents.initiate", "documents.start.1", "documents.completed", "documents.download"),
        "notify.document_ready",
    }
)


@dataclass(slots=True)
class RunLog:
    """What happened in a run."""

    traffic: Traffic
    sender: Sender
    done: list[Done] = field(default_factory=list)
    drained: float = 0.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to run."""

    broker: str
    database: str
    events: int
    kills: int
    seed: int
    only: str = ""  # the one kind of disturbance; empty for all
    receiver: str = "web"  # the modules that are run, for a test of this harness to put others in their place
    worker: str = "workers.app"
    stuck_seconds: int = 60  # without any job done: the longest lease and retry wait are far shorter here

    @property
    def seconds(self) -> float:
        """How long the traffic takes at least."""
        return self.events * (1 + DUPLICATES) / PER_SECOND

    @property
    def pair(self) -> str:
        return f"{self.broker}-{self.database}"


def run(config: RunConfig, folder: Path, pictures: Path) -> Result:
    """`folder` gets the data and logs of this run, `pictures` its plot."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = make_plan(
        config.seed, config.kills, config.broker, config.database, seconds=config.seconds, only=config.only
    )
    traffic = make_traffic(config.seed, config.events, int(time.time()))
    events = traffic.events.values()
    with World(folder, config.broker, config.database, events, (config.receiver, config.worker)) as world:
        log = RunLog(traffic, Sender(world.ports.receiver_url, SECRET, API_KEY))
        print(f"{config.pair}: {config.events} events, {len(plan)} disturbances, seed {config.seed}", flush=True)
        began = time.monotonic()
        _disturbed_traffic(log, world, plan, max(length_seconds(plan), config.seconds))
        seconds = int(time.monotonic() - began)
        _drain(log, world, config.stuck_seconds)
        return _count(config, log, world, seconds, pictures)


def _disturbed_traffic(log: RunLog, world: World, plan: list[Disturbance], seconds: float) -> None:
    deliveries = log.traffic.deliveries
    pause = seconds / len(deliveries)
    sending = threading.Thread(target=log.sender.send_all, args=(deliveries, pause), name="sender")
    sending.start()
    try:
        Monkey(world).play(plan, time.monotonic(), lambda one: _report(log, one))
        sending.join()
    finally:
        log.sender.stop()


def _report(log: RunLog, one: Done) -> None:
    log.done.append(one)
    held = f", {(one.over_ms - one.begun_ms) / 1000:.1f} s" if one.over_ms - one.begun_ms > 300 else ""
    print(f"  {len(log.done):4}  {one.kind}: {one.victim}{held}", flush=True)


def _drain(log: RunLog, world: World, stuck_seconds: int) -> None:
    """After the last disturbance: wait until no job is unfinished, or until no job has been finished for too long."""
    started = moved = time.monotonic()
    unfinished, succeeded = float("inf"), -1
    while unfinished > 0 and time.monotonic() < moved + stuck_seconds:
        calling = world.documents.busy  # read before the stats: a callback that has ended since is in them
        stats = _stats(world)
        unfinished = calling + stats.get("unfinished", float("inf"))
        if stats.get("succeeded", succeeded) > succeeded:
            succeeded, moved = stats["succeeded"], time.monotonic()
        time.sleep(0.2)
    log.drained = round(time.monotonic() - started, 1)


def _stats(world: World) -> Mapping[str, int]:
    """The counts, without the deadline that each document has tomorrow; empty while the API does not answer."""
    with suppress(requests.RequestException, redis.RedisError):
        stats = world.api.stats()
        return stats | {"unfinished": stats["unfinished"] - world.deadlines()}
    return {}


def _count(config: RunConfig, log: RunLog, world: World, seconds: int, pictures: Path) -> Result:
    acknowledged, answers, stats = log.sender.acknowledged(), log.sender.answers, _stats(world)
    with checker.connect(world.database_url) as connection:
        found = checker.find(connection) | checker.whole_files(connection, world.document_store, document_pdf)
        found |= write_log.twice(connection)
        effects = _effects(connection)
        failed = connection.execute(text(FAILED_DOCUMENTS)).scalar_one()
    sent = mails.count(
        world.mail.mails, log.done + [one for worker_log in world.logs() for one in mails.overruns(worker_log)]
    )
    found |= {"tasks at the document service": world.documents.tasks()} | sent.found | world.stripe.count_payments()
    verdict = checker.judge(log.traffic.events, acknowledged.keys(), found)
    verdict.wrong += checker.wrong_counts(stats, dead=failed, unfinished=0)
    if missing := config.events - len(acknowledged):
        verdict.wrong.append(f"{missing} events were never acknowledged")
    began = acknowledged | world.documents.acknowledged
    timed = [effect for effect in effects if effect.kind in AT_ONCE]
    title = f"{config.broker} + {config.database}: {config.events} events, {len(log.done)} disturbances"
    picture = plot(acknowledged.values(), (effect.at_ms for effect in effects), log.done, title)
    (pictures / f"chaos-{config.pair}.svg").write_text(picture)
    return Result(
        broker=config.broker,
        database=config.database,
        seed=config.seed,
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}",
        seconds=seconds,
        events=config.events,
        deliveries=len(log.traffic.deliveries),
        tries=sum(answer.tries for answer in answers),
        acknowledged=len(acknowledged),
        verdict=verdict,
        dead=stats.get("dead", -1) - failed,
        repeated_mails=sent.excused,
        restarts=sum(starts - 1 for starts in world.stack.starts.values()),
        drained=log.drained,
        delay=spread(delays(began, timed)),
        recoveries=tuple(recoveries(log.done, began, timed)),
    )


def _effects(connection: Connection) -> list[Effect]:
    """All of them, each under its event's id; for a document, under its name, not under our own id."""
    names = {row.id: row.document_id for row in connection.execute(text(DOCUMENT_IDS))}
    times = [(*job.split(":", 2)[1:], at) for job, at in connection.execute(text(EFFECT_TIMES))]
    return [Effect(names.get(event, event), kind, _ms(at)) for event, kind, at in times]


def _ms(at: datetime | str) -> float:
    """A time as the database gives it: Postgres as a time, SQLite as text without a zone, which is UTC."""
    time_of = datetime.fromisoformat(at) if isinstance(at, str) else at
    return (time_of if time_of.tzinfo else time_of.replace(tzinfo=UTC)).timestamp() * 1000
