"""A real RabbitMQ, where one is installed, beside the Redis of the record as the other broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from kombu.connection import Connection

from dev.stack.servers import Server, free_ports, wait_until

# The start script on PATH always uses the system's data folder; the script it calls does not.
RABBITMQ = Path("/usr/lib/rabbitmq/bin")
BROKERS = ["redis", "rabbitmq"] if (RABBITMQ / "rabbitmq-server").exists() and shutil.which("erl") else ["redis"]


class RabbitMQ(Server):
    """A separate server, on free ports and in its own folder."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="holdfast-mq-")))
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
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none",  # idle schedulers sleep instead of spinning
        }

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        subprocess.run(["epmd", "-kill"], env=self.environment, check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start on the existing data."""
        self.spawn([RABBITMQ / "rabbitmq-server"], env=self.environment, start_new_session=True)
        wait_until(self._answers, seconds=120, what=f"RabbitMQ; see {self.folder}/server.log")

    def send_signal(self, number: signal.Signals) -> None:
        """To the start script and to the server, which is a child of it."""
        if self.process is not None:
            os.killpg(self.process.pid, number)

    def run_short_of_memory(self) -> None:
        """Raise its memory alarm (https://www.rabbitmq.com/docs/memory). Raises RuntimeError."""
        self._allow("absolute", "1MB")

    def free_memory(self) -> None:
        """End the alarm. Raises RuntimeError."""
        self._allow("0.4")

    def _allow(self, *memory: str) -> None:
        if not self.control("set_vm_memory_high_watermark", *memory):
            raise RuntimeError(f"RabbitMQ rejected {memory} as its memory limit")

    def delete_queue(self, name: str) -> None:
        """Delete it with its messages. It need not exist. (rabbitmqctl takes a second of CPU for each command.)"""
        with Connection(self.url) as connection:  # type: ignore[no-untyped-call]
            connection.default_channel.queue_delete(name)

    def _answers(self) -> bool:
        connection: Any = Connection(self.url, connect_timeout=2)  # type: ignore[no-untyped-call]
        try:
            connection.connect()
        except connection.recoverable_connection_errors:
            return False
        finally:
            connection.release()
        return True

    def control(self, *command: str) -> bool:
        """Run rabbitmqctl. Returns whether it succeeded."""
        rabbitmqctl = [str(RABBITMQ / "rabbitmqctl"), *command]
        return subprocess.run(rabbitmqctl, env=self.environment, check=False, capture_output=True).returncode == 0
