"""The product as real processes on real servers, with settings short enough that a run can watch every recovery."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import redis

from dev.chaos.report import RunConfig
from dev.harness import write_log
from dev.harness.api_client import Api
from dev.harness.traffic import ShopEvent
from dev.simulators.document_service import DocumentService
from dev.simulators.mail import MailService
from dev.simulators.stripe import Stripe
from dev.stack.environment import any_ports, without_settings
from dev.stack.local import REPOSITORY, Stack
from dev.stack.parts import receiver, worker
from dev.stack.postgres import Postgres
from dev.stack.rabbitmq import RabbitMQ
from dev.stack.servers import Valkey, wait_until
from tasks.routes import QUEUES

SECRET = "whsec_chaos"  # signs between processes of this run only
API_KEY = "chaos-key-0123456789"
DOCUMENT_API_KEY = "chaos-document-key"
DOCUMENT_SECRET = "whsec_Y2hhb3Mtb2YtdGhlLWRvY3VtZW50LXBlZXI="
DOWNLOAD_SECONDS = 1.5  # so slow that workers die in the middle of a download
WORKER_OPTIONS = ("--without-gossip", "--without-mingle")
SETTINGS = {
    "LEASE_SECONDS": "6",
    "JOB_TIME_LIMIT_SECONDS": "5",
    "RETRY_BASE_SECONDS": "1",
    "RETRY_CAP_SECONDS": "10",
    "RING_AGAIN_SECONDS": "2",
    "MAX_ATTEMPTS": "100",  # the disturbances themselves must not end a job as a dead letter
    "PAYMENT_RETRY_SCHEDULE": "2s,3s",
    "PAYMENT_GRACE_SECONDS": "2",
    "WEB_PROCESSES": "2",
}


class SystemUnderTest:
    """Every process and simulator of a run."""

    def __init__(self, config: RunConfig, folder: Path, events: Iterable[ShopEvent]) -> None:
        self.config, self.folder, self.ports = config, folder, any_ports()
        self.sqlite_file, self.document_store = folder / "chaos.db", folder / "documents"
        self.valkey = Valkey(folder / "valkey")
        self.rabbitmq = RabbitMQ() if config.broker == "rabbitmq" else None
        self.postgres = Postgres(forgetful=False) if config.database == "postgres" else None
        self.mail, self.stripe = MailService(), Stripe(events)
        self.documents = DocumentService(
            DOCUMENT_API_KEY, DOCUMENT_SECRET, pause_seconds=0.2, download_seconds=DOWNLOAD_SECONDS
        )
        self.workers = [f"worker-{queue}" for queue in QUEUES]
        self.api = Api(self.ports.receiver_url, API_KEY)

    def deadlines(self) -> int:
        """How many documents' deadlines are still to come."""
        with closing(redis.Redis.from_url(self.valkey.url)) as client:
            later: Any = client.zrange("{holdfast}:later", 0, -1)
        return sum(b":documents.deadline." in job for job in later)

    @property
    def database_url(self) -> str:
        return self.postgres.url("test") if self.postgres else f"sqlite:///{self.sqlite_file}"

    def logs(self) -> list[str]:
        """The log of each worker."""
        return [self.stack.log(name).read_text(errors="replace") for name in self.workers]

    @property
    def store(self) -> redis.Redis:
        """A client for an operator's commands; a new one each time, because the server comes and goes."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=2)

    def lock_sqlite(self) -> sqlite3.Connection:
        """Hold the database's only write lock until the connection is closed."""
        held = sqlite3.connect(self.sqlite_file, timeout=30, isolation_level=None)
        held.execute("BEGIN EXCLUSIVE")
        return held

    def _settings(self) -> dict[str, str]:
        return {
            **without_settings(os.environ),
            **SETTINGS,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "STRIPE_API_KEY": "sk_test_chaos",
            "STRIPE_API_BASE": self.stripe.url,
            "DOC_SERVICE_URL": self.documents.url,
            "DOC_SERVICE_API_KEY": DOCUMENT_API_KEY,
            "DOC_WEBHOOK_SECRET": DOCUMENT_SECRET,
            "DOCUMENT_STORE": str(self.document_store),
            "API_KEYS": API_KEY,
            "REDIS_URL": self.valkey.url,
            "BROKER_URL": self.rabbitmq.url if self.rabbitmq else "",
            "DATABASE_URL": self.database_url,
            "CUSTOMER_NOTIFY_URLS": self.mail.notify_url,
            "TEMPLATES": str(self.folder / "templates"),
        }

    def start(self, cleanup: ExitStack) -> None:
        """What is started is stopped by `cleanup`."""
        self._write_templates()
        cleanup.callback(self.valkey.stop)
        self.valkey.start()
        for server in (self.mail, self.documents, self.stripe, self.rabbitmq, self.postgres):
            if server is not None:
                cleanup.enter_context(server)
        # What a killed worker's children still do is part of the test.
        self.stack = Stack(self.folder, self.ports, self._settings(), report=lambda _: None, keep_orphans=True)
        self.stack.environ["ADMIN_NOTIFY_URLS"] = ""
        workers = [worker(queue, queue, app=self.config.worker, options=WORKER_OPTIONS) for queue in QUEUES]
        self.stack.parts = [receiver(self.config.receiver), *workers]
        self.stack.migrate()
        write_log.create_triggers(self.database_url)
        cleanup.enter_context(self.stack)
        self.stack.start()
        self.stack.wait_ready(receiver="/livez")  # /readyz needs sweeps, which a sabotaged worker does not make
        wait_until(lambda: all(" ready." in log for log in self.logs()), seconds=60, what="the workers")

    def _write_templates(self) -> None:
        """The product's own, but with the kind as the subject, by which the mails are counted."""
        folder = self.folder / "templates"
        folder.mkdir()
        for path in (REPOSITORY / "tasks/notifications/templates").glob("*.txt"):
            _, _, body = path.read_text(encoding="utf-8").partition("\n")
            (folder / path.name).write_text(f"{path.stem}\n{body}", encoding="utf-8")


@contextmanager
def start_system(config: RunConfig, folder: Path, events: Iterable[ShopEvent]) -> Iterator[SystemUnderTest]:
    system = SystemUnderTest(config, folder, events)
    with ExitStack() as cleanup:
        system.start(cleanup)
        yield system
