"""The systems that are compared: how each is started, and how its recorded events and its effects are counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import redis
from sqlalchemy import make_url

from bench.events import SECRET
from bench.processes import ROOT, Part, tree_seconds
from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey, free_port
from inbox.store import PREFIX

INSTALLED = ROOT / "var" / "bench"
PEERS = Path(__file__).parent / "peers"
CELERY = ("-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING")
Command = list[str | Path]


class Unavailable(Exception):
    """The contender cannot run on this machine; str() is the reason."""


class Contender(ABC):
    """`folder` is for logs and data; `cwd` is where its processes run."""

    name: str
    cwd = ROOT
    bin = INSTALLED / "peers" / "bin"

    def __init__(self, valkey: Valkey, folder: Path) -> None:
        self.valkey, self.folder, self.port = valkey, folder, free_port()
        self.client: redis.Redis = redis.Redis.from_url(valkey.url, socket_timeout=60)  # more than any BLPOP waits
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def web(self) -> Command: ...

    @abstractmethod
    def worker(self) -> Command: ...

    @abstractmethod
    def recorded(self) -> int:
        """Number of distinct events in its store."""

    @abstractmethod
    def prepare(self) -> None:
        """Set up what it needs before it starts. Raises Unavailable."""

    def environment(self) -> Mapping[str, str]:
        return {"REDIS_URL": self.valkey.url, "STRIPE_WEBHOOK_SECRET": SECRET, "PORT": str(self.port)}

    def start(self, command: Command, name: str, **extra: str) -> Part:
        return Part(command, {**self.environment(), **extra}, self.folder / f"{self.name}-{name}.log", self.cwd)

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


class Holdfast(Contender):
    name = "Holdfast"

    def prepare(self) -> None:
        upgrade = [sys.executable, "-m", "tasks.upgrade"]
        subprocess.run(upgrade, cwd=ROOT, env={**self.environment()}, check=True, timeout=60)

    def web(self) -> Command:
        return [sys.executable, "-m", "web"]

    def worker(self, app: str = "bench.worker_app") -> Command:
        return [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", "payments", *CELERY]

    def workers(self, count: int, stack: ExitStack) -> list[Part]:
        """Start worker processes whose jobs only write their effect row; `stack` stops them."""
        command = self.worker()
        parts = [self.start([*command, "-n", f"{n}@%h"], f"worker-{n}", BENCH_EFFECT="nothing") for n in range(count)]
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
    cwd = PEERS

    def prepare(self) -> None:
        if not (self.bin / "gunicorn").exists():
            raise Unavailable("its packages are not installed")

    def web(self) -> Command:
        bind = f"127.0.0.1:{self.port}"
        return [self.bin / "gunicorn", "-b", bind, "-k", "gthread", "-w", "1", "--threads", "32", "naive:app"]

    def worker(self) -> Command:
        return [self.bin / "celery", "-A", "naive:celery", "worker", *CELERY]

    def recorded(self) -> int:
        return sum(1 for _ in self.client.scan_iter("seen:*", count=5000))


class BullMQ(Contender):
    name = "BullMQ"
    cwd = INSTALLED / "bullmq"

    def prepare(self) -> None:
        if shutil.which("node") is None or not (self.cwd / "node_modules").exists():
            raise Unavailable("Node or its packages are not installed")
        for script in PEERS.glob("bullmq/*.js"):
            shutil.copy(script, self.cwd)

    def web(self) -> Command:
        return ["node", "web.js"]

    def worker(self) -> Command:
        return ["node", "worker.js"]

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "NODE_ENV": "production"}

    def recorded(self) -> int:
        """Each job is a hash that stays after the job has finished."""
        return sum(1 for _ in self.client.scan_iter("bull:events:evt_*", count=5000, _type="HASH"))


class Dbos(Contender):
    name = "DBOS"
    cwd = PEERS

    def prepare(self) -> None:
        if not (self.bin / "python").exists():
            raise Unavailable("its packages are not installed")
        self.postgres.__enter__()
        self.url = self.postgres.empty()
        migration = self.start(self._command("migrate"), "migrate")
        if migration.process.wait(60):
            raise Unavailable(f"DBOS did not create its tables: {migration.log.read_text()[-300:]}")

    @cached_property
    def postgres(self) -> Postgres:
        return Postgres(forgetful=False)

    def _command(self, role: str) -> Command:
        return [self.bin / "python", "dbos_peer.py", role]

    def web(self) -> Command:
        return self._command("web")

    def worker(self) -> Command:
        return self._command("worker")

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "DBOS_DATABASE_URL": self.url}

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
        database = make_url(self.url).database
        with psycopg.connect(host=str(self.postgres.folder), user="postgres", dbname=database, autocommit=True) as db:
            found = db.execute(statement.encode())
            return (found.fetchone() or ()) if found.description else ()


CONTENDERS: tuple[type[Contender], ...] = (Holdfast, BullMQ, Naive, Dbos)
