"""The systems that are compared: how each is started, and how its recorded events and its effects are counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from bench.events import SECRET
from bench.processes import ROOT, Part, tree_seconds
from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey, free_port
from inbox.store import PREFIX

INSTALLED = ROOT / "var" / "bench"
PEERS = Path(__file__).parent / "peers"
BIN = INSTALLED / "peers" / "bin"
CELERY = ("-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING")
Command = Sequence[str | Path]


class Contender(ABC):
    """`folder` is for logs and data; `cwd` is where the commands of its receiver and of its worker run."""

    name: str
    web: Command
    worker: Command
    cwd = ROOT

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        self.valkey, self.folder, self.port = valkey, folder, free_port()
        self.client: redis.Redis = redis.Redis.from_url(valkey.url, socket_timeout=60)  # more than any BLPOP waits
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def recorded(self) -> int:
        """Number of distinct events in its store."""

    def prepare(self) -> None:  # noqa: B027  not all need it
        """Set up what it needs before it starts. Raises RuntimeError or OSError if it cannot run on this machine."""

    def environment(self) -> Mapping[str, str]:
        return {"REDIS_URL": self.valkey.url, "STRIPE_WEBHOOK_SECRET": SECRET, "PORT": str(self.port)}

    def start(self, command: Command, name: str, **extra: str) -> Part:
        return Part(command, {**self.environment(), **extra}, self.folder / f"{self.name}-{name}.log", self.cwd)

    def start_web(self, stack: ExitStack, **extra: str) -> Part:
        """Start the receiver, and wait until it listens; `stack` stops it."""
        web = self.start(self.web, "web", **extra)
        stack.callback(web.stop)
        web.wait_for(self.port)
        return web

    def effects(self) -> int:
        found: Any = self.client.get("effects")
        return int(found or 0)

    def wipe(self) -> None:
        """Delete every event and effect."""
        self.client.flushall()

    def store_seconds(self) -> float:
        """CPU time of the servers that hold its data."""
        assert self.valkey.process is not None
        return tree_seconds(self.valkey.process.pid)

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Stop what `prepare` started."""

    def _count_keys(self, pattern: str, kind: str) -> int:
        return sum(1 for _ in self.client.scan_iter(pattern, count=5000, _type=kind))


def _holdfast_worker(app: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", "payments", *CELERY]


class Holdfast(Contender):
    name = "Holdfast"
    web = (sys.executable, "-m", "web")
    worker = _holdfast_worker("bench.worker_app")
    bare_worker = _holdfast_worker("bench.bare_app")

    def prepare(self) -> None:
        upgrade = [sys.executable, "-m", "tasks.upgrade"]
        subprocess.run(upgrade, cwd=ROOT, env={**self.environment()}, check=True, timeout=60)

    def workers(self, count: int, stack: ExitStack) -> list[Part]:
        """Start worker processes whose jobs only write their effect row; `stack` stops them."""
        names = [("-n", f"{n}@%h") for n in range(count)]
        parts = [self.start([*self.worker, *name], f"worker-{name[1]}", BENCH_EFFECT="nothing") for name in names]
        for part in parts:
            stack.callback(part.stop)
        return parts

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "DATABASE_URL": f"sqlite:///{self.folder}/holdfast.db",
            "DOCUMENT_STORE": str(self.folder / "documents"),
            "TASK_EVENTS": "off",  # no other contender sends task events to a dashboard
            "BENCH_EFFECT": "count",
        }

    def recorded(self) -> int:
        return self._count("accepted")

    def unfinished(self) -> int:
        """Number of jobs that are ready or leased."""
        return self._count("ready", "leased")

    def _count(self, *names: str) -> int:
        counts: Any = self.client.hmget(PREFIX + "counts", names)
        return sum(int(count or 0) for count in counts)


@contextmanager
def holdfast_in(name: str) -> Iterator[Holdfast]:
    """Holdfast alone, on an empty Valkey; its data are in var/`name`."""
    folder = ROOT / "var" / name
    shutil.rmtree(folder, ignore_errors=True)
    valkey = Valkey(folder / "valkey").start()
    try:
        ours = Holdfast(valkey, folder)
        ours.prepare()
        yield ours
    finally:
        valkey.kill()


class Naive(Contender):
    name = "by hand"
    web = (BIN / "gunicorn", "-k", "gthread", "-w", "1", "--threads", "32", "naive:app")
    worker = (BIN / "celery", "-A", "naive:celery", "worker", *CELERY)
    cwd = PEERS

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "GUNICORN_CMD_ARGS": f"--bind=127.0.0.1:{self.port}"}

    def recorded(self) -> int:
        return self._count_keys("seen:*", "STRING")


class BullMQ(Contender):
    name = "BullMQ"
    web = ("node", "web.js")
    worker = ("node", "worker.js")
    cwd = INSTALLED / "bullmq"

    def prepare(self) -> None:
        for script in PEERS.glob("bullmq/*.js"):
            shutil.copy(script, self.cwd)

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "NODE_ENV": "production"}

    def recorded(self) -> int:
        """Each job is a hash that stays after the job has finished."""
        return self._count_keys("bull:events:evt_*", "HASH")


class Dbos(Contender):
    name = "DBOS"
    web = (BIN / "python", "dbos_peer.py", "web")
    worker = (BIN / "python", "dbos_peer.py", "worker")
    cwd = PEERS

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        super().__init__(valkey, folder)
        self.postgres = Postgres(forgetful=False)

    def prepare(self) -> None:
        self.postgres.__enter__()
        migration = self.start((BIN / "python", "dbos_peer.py", "migrate"), "migrate")
        if migration.process.wait(60):
            raise RuntimeError(f"DBOS did not create its tables: {migration.log.read_text()[-300:]}")

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "DBOS_DATABASE_URL": self.postgres.url("postgres")}

    def recorded(self) -> int:
        return int(self._sql("SELECT count(*) FROM dbos.workflow_status")[0])

    def wipe(self) -> None:
        super().wipe()
        self._sql("TRUNCATE dbos.workflow_status CASCADE")

    def store_seconds(self) -> float:
        """Postgres, and Valkey, which counts the effects."""
        assert self.postgres.process is not None
        return super().store_seconds() + tree_seconds(self.postgres.process.pid)

    def close(self) -> None:
        self.postgres.__exit__(None, None, None)

    def _sql(self, statement: str) -> tuple[Any, ...]:
        with psycopg.connect(host=str(self.postgres.folder), user="postgres", autocommit=True) as db:
            found = db.execute(statement.encode())
            return (found.fetchone() or ()) if found.description else ()


CONTENDERS: tuple[type[Contender], ...] = (Holdfast, BullMQ, Naive, Dbos)
