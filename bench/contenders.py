"""The systems that are compared: how each is started, and how its recorded events and its effects are counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import redis

from bench.events import SECRET, new_events, record
from bench.processes import ROOT, Part, tree_seconds
from dev.stack.postgres import Postgres
from dev.stack.servers import Server, Valkey, free_port, wait_until
from inbox.job import NewJob
from inbox.queries import stats
from inbox.store import Store
from tasks import broker

INSTALLED = ROOT / "var" / "bench"  # the peers and their packages
BIN = INSTALLED / "venv" / "bin"
CELERY = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING")
Command = Sequence[str | Path]


class Contender(ABC):
    """`measurements` are those it takes part in; `cwd` is where its commands run, `folder` is for logs and data."""

    name: str
    web: Command
    worker: Command
    cwd = INSTALLED
    effect = "nothing"
    measurements: tuple[str, ...] = ("acks", "steady", "end_to_end")

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        self.valkey, self.folder, self.port = valkey, folder, free_port()
        self.client: redis.Redis = redis.Redis.from_url(valkey.url, socket_timeout=60)  # more than any BLPOP waits
        self.stores: list[Server] = [valkey]  # the servers that hold its data
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "REDIS_URL": valkey.url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "PORT": str(self.port),
            "DATABASE_URL": f"sqlite:///{folder}/holdfast.db",
            "DOCUMENT_STORE": str(folder / "documents"),
            "TASK_EVENTS": "off",  # no other contender sends task events to a dashboard
            "BENCH_EFFECT": self.effect,
            "GUNICORN_CMD_ARGS": f"--bind=127.0.0.1:{self.port}",
            "NODE_ENV": "production",
        }

    def prepare(self, stack: ExitStack) -> None:  # noqa: B027  not all need it
        """Set up what it needs before it starts. Raises RuntimeError or OSError if it cannot run on this machine."""

    def start(self, command: Command, name: str, **extra: str) -> Part:
        return Part(command, {**self.environment, **extra}, self.folder / f"{self.name}-{name}.log", self.cwd)

    def start_receiver(self, stack: ExitStack, **extra: str) -> None:
        """Start the receiver, and wait until it answers; `stack` stops it."""
        self.receiver = stack.enter_context(self.start(self.web, "web", **extra))
        self.receiver.wait_for(self.port)

    @abstractmethod
    def recorded(self) -> int:
        """Number of distinct events in its store."""

    def effects(self) -> int:
        found: Any = self.client.get("effects")
        return int(found or 0)

    def wipe(self) -> None:
        """Delete every event and effect."""
        self.client.flushall()

    def store_seconds(self) -> float:
        """CPU time of the servers that hold its data."""
        return sum(tree_seconds(server.process.pid) for server in self.stores if server.process)


def celery_worker(app: str, processes: int = 1) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", "payments", "-c", str(processes), *CELERY]


class Holdfast(Contender):
    name = "Holdfast"
    web: Command = (sys.executable, "-m", "web")
    worker: Command = celery_worker("bench.worker_app")
    cwd = ROOT
    measurements = (*Contender.measurements, "drain", "idle")

    def prepare(self, stack: ExitStack) -> None:
        self.store = Store(self.client, message=broker.task_message)
        upgrade = [sys.executable, "-m", "tasks.upgrade"]
        subprocess.run(upgrade, cwd=ROOT, env=self.environment, check=True, timeout=60)

    def start_workers(self, count: int, stack: ExitStack) -> list[Part]:
        """Start worker processes; `stack` stops them."""
        commands = [[*self.worker, "-n", f"{number}@%h"] for number in range(count)]
        return [stack.enter_context(self.start(it, f"worker-{number}")) for number, it in enumerate(commands)]

    def fill(self, count: int) -> None:
        """Record new events with one job each."""
        record(self.store, new_events(count))

    def recorded(self) -> int:
        return stats(self.store)["accepted"]

    def unfinished(self) -> int:
        """Number of jobs that are pending or running; none is scheduled."""
        return stats(self.store)["unfinished"]

    def succeeded(self) -> int:
        """Number of jobs that its store knows to have succeeded."""
        return stats(self.store)["succeeded"]


class BareCelery(Holdfast):
    """Only Celery, with Holdfast's settings: the lower limit of a worker's cost."""

    name = "bare Celery"
    web = ()
    worker = celery_worker("bench.bare_app")
    measurements = ("drain",)

    def fill(self, count: int) -> None:
        """Only the messages, without a record."""
        for number in range(count):
            name = f"stripe:evt_{number:025}:payments.payment_failed"
            job = NewJob(name, "tasks.payments.payment_failed", "payments")
            self.client.lpush("payments", broker.task_message(job))

    def unfinished(self) -> int:
        return int(self.client.llen("payments"))


class BareCelerySql(BareCelery):
    name = "bare Celery, one SQL row each"
    effect = "sql"


class Naive(Contender):
    name = "by hand"
    web = (BIN / "gunicorn", "-k", "gthread", "-w", "1", "--threads", "32", "naive:app")
    worker = (BIN / "celery", "-A", "naive:celery", "worker", "-c", "1", *CELERY)

    def recorded(self) -> int:
        return len(set(self.client.scan_iter("seen:*", count=5000)))


class BullMQ(Contender):
    name = "BullMQ"
    web = ("node", "web.js")
    worker = ("node", "worker.js")
    cwd = INSTALLED / "bullmq"

    def recorded(self) -> int:
        """Each job is a hash that stays after the job has finished."""
        return len(set(self.client.scan_iter("bull:events:evt_*", count=5000, _type="HASH")))

    def succeeded(self) -> int:
        return int(self.client.zcard("bull:events:completed"))


class Dbos(Contender):
    name = "DBOS"
    web = (BIN / "python", "dbos_peer.py", "web")
    worker = (BIN / "python", "dbos_peer.py", "worker")

    def prepare(self, stack: ExitStack) -> None:
        postgres = stack.enter_context(Postgres(forgetful=False))
        self.stores.append(postgres)  # Valkey counts the effects
        self.environment["DBOS_DATABASE_URL"] = postgres.url("postgres")
        self.db = stack.enter_context(psycopg.connect(host=str(postgres.folder), user="postgres", autocommit=True))
        with self.start(self.worker, "migrate") as worker:  # it creates the tables
            wait_until(lambda: "ready" in worker.log.read_text(), seconds=60, what=f"DBOS; see {worker.log}")

    def recorded(self) -> int:
        return self._count("true")

    def succeeded(self) -> int:
        return self._count("status = 'SUCCESS'")

    def _count(self, condition: LiteralString) -> int:
        ((count,),) = self.db.execute(f"SELECT count(*) FROM dbos.workflow_status WHERE {condition}").fetchall()
        return int(count)

    def wipe(self) -> None:
        super().wipe()
        self.db.execute("TRUNCATE dbos.workflow_status CASCADE")


CONTENDERS: tuple[type[Contender], ...] = (Holdfast, BullMQ, Naive, Dbos, BareCelery, BareCelerySql)


def start_valkey(folder: Path, stack: ExitStack) -> Valkey:
    """Empty the folder, and start an empty Valkey in it; `stack` kills it."""
    shutil.rmtree(folder, ignore_errors=True)
    valkey = Valkey(folder / "valkey").start()
    stack.callback(valkey.kill)
    return valkey


@contextmanager
def holdfast_in(name: str) -> Iterator[tuple[Holdfast, ExitStack]]:
    """Holdfast alone, on an empty Valkey; its data are in var/`name`. The stack stops what is started on it."""
    folder = ROOT / "var" / name
    with ExitStack() as stack:
        ours = Holdfast(start_valkey(folder, stack), folder)
        ours.prepare(stack)
        yield ours, stack
