"""Measured processes. CPU time includes all descendants, and descendants end with their process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from dev.stack.servers import wait_until

ROOT = Path(__file__).parent.parent


class Part:
    """One process with its log, in its own session; it is stopped at the end of the block."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path, cwd: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **environment}, stdout=out, stderr=out, start_new_session=True
            )

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        """SIGTERM, and after 10 seconds SIGKILL to what is left of the session."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cpu_seconds(self) -> float:
        return tree_seconds(self.process.pid)

    def memory_bytes(self) -> int:
        return tree_bytes(self.process.pid)

    def wait_for(self, port: int) -> None:
        """Wait until it listens. Raises RuntimeError with the end of its log if it ends instead."""
        wait_until(lambda: self._listens(port), seconds=60, what=f"port {port}; see {self.log}")

    def _listens(self, port: int) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the process ended: {self.log.read_text(errors='replace')[-800:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


def tree_seconds(pid: int) -> float:
    """User and system CPU time of a process and all its descendants, including those that have ended."""
    root, total = psutil.Process(pid), 0.0
    for member in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended: its parent's times include it
            total += sum(member.cpu_times()[:4])  # user, system, and both of the children it has waited for
    return total


def tree_bytes(pid: int) -> int:
    """Memory of a process and all its descendants; what they share is counted once (PSS; Linux only)."""
    root, total = psutil.Process(pid), 0
    for member in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_full_info().pss
    return total
