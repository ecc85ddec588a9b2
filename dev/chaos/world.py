"""The product as real processes on real servers, with settings that make every recovery quick enough to be watched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
import requests

from dev.chaos.keeper import ROOT, Keeper, Part
from dev.harness import write_log
from dev.harness.api_client import Api
from dev.harness.traffic import ShopEvent
from dev.simulators.document_service import DocumentService
from dev.simulators.mail import MailService
from dev.simulators.stripe import Stripe
from dev.stack.environment import without_settings
from dev.stack.postgres import Postgres
from dev.stack.rabbitmq import RabbitMQ
from dev.stack.servers import Valkey, free_port, wait_until

SECRET = "whsec_chaos"  # signs between processes of this run only
API_KEY = "chaos-key-0123456789"
DOCUMENT_API_KEY = "chaos-document-key"
DOCUMENT_SECRET = "whsec_Y2hhb3Mtb2YtdGhlLWRvY3VtZW50LXBlZXI="
DOWNLOAD_SECONDS = 1.5  # so slow that workers die in the middle of a download
QUEUES = ("payments", "fulfilment", "documents", "downloads", "notifications", "handoffs")
PROCESSES = 2
QUICK = {
    "LEASE_SECONDS": "6",
    "JOB_TIME_LIMIT_SECONDS": "5",
    "RETRY_BASE_SECONDS": "1",
    "RETRY_CAP_SECONDS": "10",
    "RING_AGAIN_SECONDS": "2",
    "MAX_ATTEMPTS": "100",  # what chaos itself does must not bury a job
    "PAYMENT_RETRY_SCHEDULE": "2s,3s",
    "PAYMENT_GRACE_SECONDS": "2",
}


class World:
    """Everything that runs; a context manager that leaves nothing behind. `modules`: the receiver's, the workers'."""

    def __init__(
        self, folder: Path, broker: str, database: str, events: Iterable[ShopEvent], modules: tuple[str, str]
    ) -> None:
        self._modules = modules
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.valkey = Valkey(folder / "valkey")
        self.rabbitmq = RabbitMQ() if broker == "rabbitmq" else None
        self.postgres = Postgres(forgetful=False) if database == "postgres" else None
        self.mail, self.stripe = MailService(), Stripe(events)
        self.documents = DocumentService(
            DOCUMENT_API_KEY, DOCUMENT_SECRET, pause_seconds=0.2, download_seconds=DOWNLOAD_SECONDS
        )
        self.api = Api(self.address, API_KEY)
        self._end = ExitStack()

    def __enter__(self) -> World:
        with self._end as on_failure:
            self._start_servers()
            self._start_parts()
            self._end = on_failure.pop_all()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.close()

    def deadlines(self) -> int:
        """How many documents' deadlines are still to come."""
        with closing(redis.Redis.from_url(self.valkey.url)) as client:
            later: Any = client.zrange("{holdfast}:later", 0, -1)
        return sum(b":documents.deadline." in job for job in later)

    @property
    def database_url(self) -> str:
        return self.postgres.url("test") if self.postgres else f"sqlite:///{self.sqlite_file}"

    @property
    def sqlite_file(self) -> Path:
        return self.folder / "chaos.db"

    @property
    def document_store(self) -> Path:
        return self.folder / "documents"

    def logs(self) -> list[str]:
        """What each worker said."""
        return [part.log.read_text(errors="replace") for part in self.workers]

    @property
    def store(self) -> redis.Redis:
        """A client for an operator's commands; a new one each time, because the server comes and goes."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=2)

    def lock_sqlite(self) -> sqlite3.Connection:
        """Hold the database's only write lock until the connection is closed."""
        held = sqlite3.connect(self.sqlite_file, timeout=30, isolation_level=None)
        held.execute("BEGIN EXCLUSIVE")
        return held

    def environment(self) -> dict[str, str]:
        return {
            **without_settings(os.environ),
            **QUICK,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "STRIPE_API_KEY": "sk_test_chaos",
            "STRIPE_API_BASE": self.stripe.url,
            "DOC_SERVICE_URL": self.documents.url,
            "DOC_SERVICE_API_KEY": DOCUMENT_API_KEY,
            "DOC_WEBHOOK_SECRET": DOCUMENT_SECRET,
            "DOCUMENT_STORE": str(self.document_store),
            "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
            "PUBLIC_URL": self.address,
            "API_KEYS": API_KEY,
            "REDIS_URL": self.valkey.url,
            "BROKER_URL": self.rabbitmq.url if self.rabbitmq else "",
            "DATABASE_URL": self.database_url,
            "CUSTOMER_NOTIFY_URLS": self.mail.notify_url,
            "TEMPLATES": str(self.folder / "templates"),
            "WEB_PROCESSES": str(PROCESSES),
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }

    def _write_templates(self) -> None:
        """The product's words, each under its kind as its subject, by which the mails are counted."""
        folder = self.folder / "templates"
        folder.mkdir()
        for path in (ROOT / "tasks/notifications/templates").glob("*.txt"):
            _, _, body = path.read_text(encoding="utf-8").partition("\n")
            (folder / path.name).write_text(f"{path.stem}\n{body}", encoding="utf-8")

    def _start_servers(self) -> None:
        self._write_templates()
        for simulator in (self.mail, self.documents, self.stripe):
            self._end.enter_context(simulator)
        self._end.callback(self.valkey.stop)
        self.valkey.start()
        for server in (self.rabbitmq, self.postgres):
            if server is not None:
                self._end.enter_context(server)
        subprocess.run([sys.executable, "-m", "tasks.upgrade"], cwd=ROOT, env=self.environment(), check=True)
        write_log.begin(self.database_url)

    def _start_parts(self) -> None:
        receiver, app = self._modules
        self.receiver = self._part("receiver", "-m", receiver)
        quick = ("--without-gossip", "--without-mingle", "--loglevel=INFO", "-c", str(PROCESSES))
        worker = ("-m", "celery", "-A", app, "worker", *quick)
        self.workers = [self._part(f"worker-{queue}", *worker, "-Q", queue, "-n", f"{queue}@%h") for queue in QUEUES]
        wait_until(self._answers, seconds=60, what="the receiver")
        for part in self.workers:
            wait_until(lambda part=part: part.said(" ready."), seconds=60, what=part.name)  # type: ignore[misc]
        keeper = Keeper([self.receiver, *self.workers])
        self._end.callback(keeper.stop)
        keeper.start()

    def _part(self, name: str, *command: str) -> Part:
        part = Part(name, command, self.environment(), self.folder / f"{name}.log")
        self._end.callback(part.end)
        return part

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.address}/livez", timeout=1).ok
        except requests.RequestException:
            return False
