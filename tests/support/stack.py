"""Real processes for tests: workers and the receiver, using the test's servers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, text

from dev.stack.servers import answers, free_port, wait_until
from tests.support.forked import ForkedProcess
from tests.support.signed_deliveries import API_KEY, DOC_SECRET, STRIPE_SECRET

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 45  # stop_grace_period in docker-compose.yml


class Process:
    """A process with its log and its child processes."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.touch()
        self.process = ForkedProcess(command, {**os.environ, **environment}, log, ROOT)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def family(self) -> list[psutil.Process]:
        """Its children, then itself; empty once it is dead."""
        return [*self.children(), psutil.Process(self.process.pid)] if self.alive() else []

    def kill(self) -> None:
        """SIGKILL for the process and its children, as when their machine dies."""
        for member in self.family():
            member.kill()
        self.process.wait(10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for the process and its children while the block runs."""
        family = self.family()
        for member in family:
            member.suspend()
        yield
        for member in family:
            member.resume()

    def stop(self) -> int:
        """SIGTERM; returns the exit code. Raises TimeoutExpired after the grace period of a deployment.

        Most workers end within 10 s. If the pool is busy in that moment, Celery waits 30 s more for it.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GRACE_SECONDS)

    def alive(self) -> bool:
        return self.process.poll() is None

    def has_logged(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")


class Stack:
    """Starts parts with one environment and ends all of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.parts: list[Process] = []
        self.port = free_port()
        self.environment = {
            "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
            "DOC_WEBHOOK_SECRET": DOC_SECRET,
            "API_KEYS": API_KEY,
            "DATABASE_URL": f"sqlite:///{folder}/test.db",
            "DOCUMENT_STORE": str(folder / "documents"),
            "LEASE_SECONDS": "6",
            "JOB_TIME_LIMIT_SECONDS": "5",
            "RETRY_BASE_SECONDS": "1",
            "RING_AGAIN_SECONDS": "2",
            "ALERT_NOTIFY_URLS": "off",
            "PORT": str(self.port),
            "HOLDFAST_TEST_FOLDER": str(folder),
            **environment,
        }

    def migrate(self) -> None:
        Process(["-m", "tasks.upgrade"], self.environment, self.folder / "migrate.log").process.wait(60)

    def worker(
        self,
        *,
        queues: str = "payments",
        processes: int = 1,
        app: str = "tests.support.worker_app",
        ready: bool = True,
        name: str = "",
        **extra: str,
    ) -> Process:
        log_name = f"worker-{len(self.parts)}"
        command = ["-m", "celery", "-A", app, "worker", "-Q", queues, "-c", str(processes)]
        quick = ["--without-gossip", "--without-mingle"]
        part = self._start([*command, *quick, "-n", f"{name or log_name}@%h", "--loglevel=INFO"], log_name, extra)
        if ready:
            wait_until(lambda: part.has_logged(" ready."), seconds=120, what=f"{log_name} to be ready; see {part.log}")
        return part

    def receiver(self, module: str = "web", **extra: str) -> Process:
        part = self._start(["-m", module], "receiver", extra)
        wait_until(lambda: answers(self.url("/livez")), seconds=120, what=f"the receiver; see {part.log}")
        return part

    def part(self, *command: str, name: str, **extra: str) -> Process:
        """Start any other part: `python -m <command>`."""
        return self._start(["-m", *command], name, extra)

    def log_tails(self, lines: int = 30) -> str:
        """The end of each part's log, for the message of a test that timed out."""
        tails = {part.log.name: part.log.read_text(errors="replace").splitlines()[-lines:] for part in self.parts}
        return "\n".join(f"--- {name}\n" + "\n".join(tail) for name, tail in tails.items())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def rows(self, query: str) -> list[Any]:
        """What the business database answers to this SQL."""
        engine = create_engine(self.environment["DATABASE_URL"])
        with engine.connect() as connection:
            found = list(connection.execute(text(query)))
        engine.dispose()
        return found

    def end(self) -> None:
        for part in self.parts:
            if part.alive():
                part.kill()

    def _start(self, command: list[str], name: str, extra: Mapping[str, str]) -> Process:
        part = Process(command, {**self.environment, **extra}, self.folder / f"{name}.log")
        self.parts.append(part)
        return part
