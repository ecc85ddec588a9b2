"""One chaos run on one pair of broker and database: traffic and disturbances together, then quiet, then the count."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import redis
from sqlalchemy import Connection, text

from cli.errors import CommandError
from dev.chaos.monkey import Monkey
from dev.chaos.plan import Disturbance, length_seconds, make_plan
from dev.chaos.report import Result, RunConfig, plot
from dev.chaos.system import API_KEY, SECRET, SystemUnderTest
from dev.harness import checker, mails, write_log
from dev.harness.record import wait_for_jobs
from dev.harness.sender import Sender
from dev.harness.timing import Effect, Outage, delays, recoveries, spread
from dev.harness.traffic import Traffic, make_traffic
from dev.simulators.pdf import document_pdf

EFFECT_TIMES = "SELECT job_id, done_at FROM effects ORDER BY done_at"
DOCUMENT_IDS = "SELECT id, document_id FROM documents"
FAILED_DOCUMENTS = "SELECT count(*) FROM documents WHERE status = 'failed'"  # each leaves a dead letter, for a retry
# These happen as soon as they can. A retry of a payment waits for its time, which does not depend on our speed.
AT_ONCE = (
    *("payments.payment_failed", "notify.payment_failed", "fulfilment.checkout_completed", "notify.receipt"),
    *("documents.initiate", "documents.start.1", "documents.completed", "documents.download"),
    "notify.document_ready",
)


def run(config: RunConfig, folder: Path, pictures: Path) -> Result:
    """`folder` gets the data and logs of this run, `pictures` its chart."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    traffic = make_traffic(config.seed, config.events, int(time.time()))
    with SystemUnderTest(config, folder, traffic.events.values()) as system:
        system.start()
        return ChaosRun(config, system, traffic).play(pictures)


class ChaosRun:
    """One run: first everything at once, then it waits for the jobs, then it counts."""

    def __init__(self, config: RunConfig, system: SystemUnderTest, traffic: Traffic) -> None:
        self.config, self.system, self.traffic = config, system, traffic
        self.sender = Sender(system.ports.receiver_url, SECRET, API_KEY)
        self.outages: list[Outage] = []

    def play(self, pictures: Path) -> Result:
        config = self.config
        pair = (config.broker, config.database)
        plan = make_plan(config.seed, config.kills, *pair, seconds=config.seconds, only=config.only)
        print(f"{config.pair}: {config.events} events, {len(plan)} disturbances, seed {config.seed}", flush=True)
        began = time.monotonic()
        self._send_and_disturb(plan)
        quiet = time.monotonic()
        wait_for_jobs(self._progress, self.config.stuck_seconds)
        return self._count(int(quiet - began), round(time.monotonic() - quiet, 1), pictures)

    def _send_and_disturb(self, plan: list[Disturbance]) -> None:
        deliveries = self.traffic.deliveries
        pause = max(length_seconds(plan), self.config.seconds) / len(deliveries)
        sending = threading.Thread(target=self.sender.send_all, args=(deliveries, pause), name="sender")
        sending.start()
        try:
            Monkey(self.system).play(plan, time.monotonic(), self._report)
            sending.join()
        finally:
            self.sender.stop()

    def _report(self, one: Outage) -> None:
        self.outages.append(one)
        held = f", {(one.end_ms - one.begin_ms) / 1000:.1f} s" if one.end_ms - one.begin_ms > 300 else ""
        print(f"  {len(self.outages):4}  {one.kind}: {one.victim}{held}", flush=True)

    def _progress(self) -> tuple[int, bool]:
        calling = self.system.documents.busy  # read before the stats: a callback that has ended since is in them
        stats = self._stats()
        return stats.get("succeeded", -1), calling + stats.get("unfinished", 1) == 0

    def _stats(self) -> Mapping[str, int]:
        """The counts, without the deadline that each document has tomorrow; empty while the API does not answer."""
        with suppress(CommandError, redis.RedisError):
            deadlines = self.system.deadlines()  # read before the stats: one that is created in between is in both
            stats = self.system.api.get("stats")
            return stats | {"unfinished": stats["unfinished"] - deadlines}
        return {}

    def _count(self, seconds: int, drained: float, pictures: Path) -> Result:
        config, system, acknowledged, stats = self.config, self.system, self.sender.acknowledged(), self._stats()
        with checker.connect(system.database_url) as connection:
            found = checker.find(connection) | checker.whole_files(connection, system.document_store, document_pdf)
            found |= write_log.repeated_writes(connection)
            effects = _effects(connection)
            failed = connection.execute(text(FAILED_DOCUMENTS)).scalar_one()
        overruns = [one for log in system.logs() for one in mails.overruns(log)]
        sent = mails.count(system.mail.mails, self.outages + overruns)
        found |= {"tasks at the document service": system.documents.tasks()} | sent.found
        verdict = checker.judge(self.traffic.events, acknowledged.keys(), found | system.stripe.count_payments())
        verdict.wrong += checker.wrong_counts(stats, dead=failed, unfinished=0)
        if missing := config.events - len(acknowledged):
            verdict.wrong.append(f"{missing} events were never acknowledged")
        began = acknowledged | system.documents.acknowledged
        timed = [effect for effect in effects if effect.kind.startswith(AT_ONCE)]
        title = f"{config.broker} + {config.database}: {config.events} events, {len(self.outages)} disturbances"
        picture = plot(acknowledged.values(), (effect.at_ms for effect in effects), self.outages, title)
        (pictures / f"chaos-{config.pair}.svg").write_text(picture)
        return Result(
            config=config,
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            machine=f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}",
            seconds=seconds,
            tries=sum(answer.tries for answer in self.sender.answers),
            acknowledged=len(acknowledged),
            verdict=verdict,
            dead=stats.get("dead", -1) - failed,
            repeated_mails=sent.excused,
            restarts=sum(starts - 1 for starts in system.stack.starts.values()),
            drained=drained,
            delay=spread(delays(began, timed)),
            recoveries=tuple(recoveries(self.outages, began, timed)),
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
