"""Processes under measurement: all that they start ends with them, and its CPU time counts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from dev.stack.servers import wait_until

ROOT = Path(__file__).parent.parent


class Part:
    """One process with its log. `folder` is where it runs."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path, folder: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def cpu_seconds(self) -> float:
        return tree_seconds(self.process.pid)

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM; SIGKILL for whoever is left after `seconds`."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait_for(self, port: int) -> None:
        """Until it listens. Raises RuntimeError with its last words if it ends instead."""
        wait_until(lambda: self._listens(port), seconds=60, what=f"port {port}; see {self.log}")

    def _listens(self, port: int) -> bool:
        if not self.alive():
            raise RuntimeError(f"it ended: {self.log.read_text(errors='replace')[-800:]}")
        members = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return any(
            one.laddr.port == port and one.status == psutil.CONN_LISTEN
            for member in members
            for one in member.net_connections("tcp")
        )


def tree_seconds(pid: int) -> float:
    """User and system time of a process and all it started, those that have ended already included."""
    root = psutil.Process(pid)
    total = 0.0
    for member in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # ended since: its parent counts it
            total += sum(member.cpu_times()[:4])  # user, system, and both of the children it has waited for
    return total
