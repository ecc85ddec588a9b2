"""A real RabbitMQ, where one is installed, beside the Redis of the record as the other broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from dev.stack.servers import free_ports, wait_until

# The start script on PATH always uses the system's data folder; the script it calls does not.
RABBITMQ = Path("/usr/lib/rabbitmq/bin")
BROKERS = ["redis", "rabbitmq"] if (RABBITMQ / "rabbitmq-server").exists() and shutil.which("erl") else ["redis"]


class RabbitMQ:
    """A separate server, on free ports and in its own folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-mq-"))
        self.port, distribution, epmd = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.environment = {
            **os.environ,
            "HOME": str(self.folder),  # the Erlang cookie
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": f"holdfast-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
        }

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.control("stop")
        self.process.wait(30)
        subprocess.run(["epmd", "-kill"], env=self.environment, check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start on the existing data."""
        with (self.folder / "start.log").open("ab") as log:
            self.process = subprocess.Popen(
                [RABBITMQ / "rabbitmq-server"], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: self.control("await_startup", "--timeout", "1"), seconds=60, what="RabbitMQ")

    def kill(self) -> None:
        """SIGKILL for the server and what it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    @contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """Its memory alarm, while the block runs (https://www.rabbitmq.com/docs/memory). Raises RuntimeError."""
        self._allow("absolute", "1MB")
        yield
        self._allow("0.4")

    def _allow(self, *memory: str) -> None:
        if not self.control("set_vm_memory_high_watermark", *memory):
            raise RuntimeError(f"RabbitMQ rejected {memory} as its memory limit")

    def control(self, *command: str) -> bool:
        """Run rabbitmqctl. Returns whether it succeeded."""
        done = subprocess.run(
            [RABBITMQ / "rabbitmqctl", *command], env=self.environment, check=False, capture_output=True
        )
        return done.returncode == 0
