"""The product as real processes on real servers, with settings short enough that a run can watch every recovery."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import redis

from cli.api import Api
from dev.chaos.report import RunConfig
from dev.harness import write_log
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
from dev.stack.tcp_proxy import TcpProxy
from tasks.routes import QUEUES

SECRET = "whsec_chaos_0123456789_abcdefghi"  # signs between processes of this run only
API_KEY = "chaos-key-0123456789abcdef"
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


class SystemUnderTest(ExitStack):
    """Every process and simulator of a run; those that were started are stopped at the end of the `with` block."""

    def __init__(self, config: RunConfig, folder: Path, events: Iterable[ShopEvent]) -> None:
        super().__init__()
        self.config, self.folder, self.ports = config, folder, any_ports()
        self.sqlite_file, self.document_store = folder / "chaos.db", folder / "documents"
        self.valkey = Valkey(folder / "valkey")
        self.rabbitmq = RabbitMQ() if config.broker == "rabbitmq" else None
        self.broker_network = TcpProxy(("127.0.0.1", self.rabbitmq.port)) if self.rabbitmq else None
        self.postgres = Postgres(forgetful=False) if config.database == "postgres" else None
        self.database_network = TcpProxy(self.postgres.socket) if self.postgres else None
        self.mail, self.stripe = MailService(), Stripe(events)
        self.documents = DocumentService(
            DOCUMENT_API_KEY, DOCUMENT_SECRET, pause_seconds=0.2, download_seconds=DOWNLOAD_SECONDS
        )
        self.workers = [f"worker-{queue}" for queue in QUEUES]
        self.api = Api(self.ports.receiver_url, API_KEY)

    def deadlines(self) -> int:
        """How many documents' deadlines are still to come."""
        with closing(redis.Redis.from_url(self.valkey.url)) as client:
            later: Any = client.zrange("{holdfast}:later:documents", 0, -1)
        return sum(b":documents.deadline." in job for job in later)

    @property
    def database_url(self) -> str:
        if not self.database_network:
            return f"sqlite:///{self.sqlite_file}"
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.database_network.port}/test"

    def logs(self) -> list[str]:
        """The log of each worker."""
        return [self.stack.log(name).read_text(errors="replace") for name in self.workers]

    @property
    def store(self) -> redis.Redis:
        """A client for an operator's commands; a new one each time, because the server comes and goes."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=2)

    def lock_sqlite(self) -> None:
        """Hold the database's only write lock until `unlock_sqlite`."""
        self.lock = sqlite3.connect(self.sqlite_file, timeout=30, isolation_level=None)
        self.lock.execute("BEGIN EXCLUSIVE")

    def unlock_sqlite(self) -> None:
        self.lock.close()

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
            "API_RATE_PER_MINUTE": "1000000",  # one key sends all requests for documents
            "API_MAILS_PER_HOUR": "1000000",
            "REDIS_URL": self.valkey.url,
            "BROKER_URL": f"amqp://guest:guest@127.0.0.1:{self.broker_network.port}//" if self.broker_network else "",
            "DATABASE_URL": self.database_url,
            "CUSTOMER_NOTIFY_URLS": self.mail.notify_url,
            "TEMPLATES": str(self.folder / "templates"),
        }

    def start(self) -> None:
        self._write_templates()
        self.callback(self.valkey.stop)
        self.valkey.start()
        servers = (self.mail, self.documents, self.stripe, self.rabbitmq, self.postgres)
        for server in (*servers, self.broker_network, self.database_network):
            if server is not None:
                self.enter_context(server)
        # What a killed worker's children still do is part of the test.
        self.stack = Stack(self.folder, self.ports, self._settings(), report=lambda _: None, keep_orphans=True)
        self.stack.environ["ADMIN_NOTIFY_URLS"] = ""
        workers = [worker(queue, queue, app=self.config.worker, options=WORKER_OPTIONS) for queue in QUEUES]
        self.stack.parts = [receiver(self.config.receiver), *workers]
        self.stack.migrate()
        write_log.create_triggers(self.database_url)
        self.enter_context(self.stack)
        self.stack.start()
        self.stack.wait_ready(receiver="/livez")  # /readyz needs sweeps, which a sabotaged worker does not make
        wait_until(lambda: all(" ready." in log for log in self.logs()), seconds=60, what="the workers")

    def _write_templates(self) -> None:
        """The product's own, but with the kind as the subject, by which the mails are counted.

        A thank-you has several texts, because another invoice of the same customer may be open.
        """
        folder = self.folder / "templates"
        folder.mkdir()
        for path in (REPOSITORY / "tasks/notifications/templates").glob("*.md"):
            _, _, body = path.read_text(encoding="utf-8").partition("\n")
            kind = "payment_recovered" if path.stem.startswith("payment_received") else path.stem
            (folder / path.name).write_text(f"{kind}\n{body}", encoding="utf-8")
