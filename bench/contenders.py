"""Who is compared: each with its receiver, its worker, and how to count what it recorded and what it did."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
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

PEERS = Path(__file__).parent / "peers"
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING")
THREADS = "32"


class NotHere(Exception):
    """A contender that cannot run on this machine; str() says why."""


class Contender(ABC):
    """`installed` is where peers' packages are; `folder` for logs and data."""

    name: str
    what: str

    def __init__(self, valkey: Valkey, installed: Path, folder: Path) -> None:
        self.valkey, self.installed, self.folder = valkey, installed, folder
        self.client: redis.Redis = redis.Redis.from_url(valkey.url)
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def web(self) -> list[str | Path]: ...

    @abstractmethod
    def worker(self) -> list[str | Path]: ...

    @abstractmethod
    def recorded(self) -> int:
        """How many events it has taken in, each counted once."""

    @abstractmethod
    def prepare(self) -> None:
        """Whatever must be there before it starts. Raises NotHere."""

    def environment(self) -> Mapping[str, str]:
        return {"REDIS_URL": self.valkey.url, "STRIPE_WEBHOOK_SECRET": SECRET, "PORT": str(self.port)}

    def workplace(self) -> Path:
        return ROOT

    def start(self, command: list[str | Path], name: str, **extra: str) -> Part:
        environment = {**self.environment(), **extra}
        return Part(command, environment, self.folder / f"{self.name}-{name}.log", self.workplace())

    def effects(self) -> int:
        found: Any = self.client.get("effects")
        return int(found or 0)

    def wipe(self) -> None:
        """Forget every event and effect."""
        self.client.flushall()

    def store_seconds(self) -> float:
        """CPU time of the servers that hold its record."""
        assert self.valkey.process is not None
        return tree_seconds(self.valkey.process.pid)

    def close(self) -> None:  # noqa: B027  most start nothing
        """End what `prepare` started."""


class Holdfast(Contender):
    name, what = "Holdfast", "this"

    def prepare(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "tasks.upgrade"], cwd=ROOT, env={**self.environment()}, check=True, timeout=60
        )

    def web(self) -> list[str | Path]:
        return [sys.executable, "-m", "web"]

    def worker(self) -> list[str | Path]:
        return [sys.executable, "-m", "celery", "-A", "bench.worker_app", "worker", "-Q", "payments", "-c", "1", *QUIET]

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "DATABASE_URL": f"sqlite:///{self.folder}/holdfast.db",
            "DOCUMENT_STORE": str(self.folder / "documents"),
            "TASK_EVENTS": "off",  # none of the others tells a dashboard of every task
            "BENCH_EFFECT": "count",
        }

    def recorded(self) -> int:
        found: Any = self.client.hget(PREFIX + "counts", "accepted")
        return int(found or 0)


class Naive(Contender):
    name, what = "by hand", "Flask on gunicorn, construct_event, SET NX, Celery's delay()"

    def prepare(self) -> None:
        if not (self.installed / "peers" / "bin" / "gunicorn").exists():
            raise NotHere("its packages are not installed")

    def web(self) -> list[str | Path]:
        bind = ["-b", f"127.0.0.1:{self.port}", "-k", "gthread", "-w", "1", "--threads", THREADS]
        return [self.installed / "peers" / "bin" / "gunicorn", *bind, "naive:app"]

    def worker(self) -> list[str | Path]:
        return [self.installed / "peers" / "bin" / "celery", "-A", "naive:celery", "worker", "-c", "1", *QUIET]

    def workplace(self) -> Path:
        return PEERS

    def recorded(self) -> int:
        return sum(1 for _ in self.client.scan_iter("seen:*", count=5000))


class BullMQ(Contender):
    name, what = "BullMQ", "Fastify and BullMQ on Node"

    def prepare(self) -> None:
        if shutil.which("node") is None or not (self.workplace() / "node_modules").exists():
            raise NotHere("Node or its packages are not installed")
        for script in PEERS.glob("bullmq/*.js"):
            shutil.copy(script, self.workplace())

    def web(self) -> list[str | Path]:
        return ["node", "web.js"]

    def worker(self) -> list[str | Path]:
        return ["node", "worker.js"]

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "NODE_ENV": "production"}

    def workplace(self) -> Path:
        return self.installed / "bullmq"

    def recorded(self) -> int:
        """Every job that was ever added is a hash of its own."""
        return sum(1 for _ in self.client.scan_iter("bull:events:evt_*", count=5000, _type="HASH"))


class Dbos(Contender):
    name, what = "DBOS", "FastAPI and DBOS on Postgres"

    def prepare(self) -> None:
        if not (self.python.exists()):
            raise NotHere("its packages are not installed")
        self.postgres.__enter__()
        self.url = self.postgres.empty()
        done = self.start([self.python, "dbos_peer.py", "migrate"], "migrate")
        if done.process.wait(60):
            raise NotHere(f"DBOS did not set up its tables: {done.log.read_text()[-300:]}")

    @cached_property
    def postgres(self) -> Postgres:
        return Postgres(forgetful=False)

    @property
    def python(self) -> Path:
        return self.installed / "peers" / "bin" / "python"

    def web(self) -> list[str | Path]:
        return [self.python, "dbos_peer.py", "web"]

    def worker(self) -> list[str | Path]:
        return [self.python, "dbos_peer.py", "worker"]

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "DBOS_DATABASE_URL": self.url}

    def workplace(self) -> Path:
        return PEERS

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
