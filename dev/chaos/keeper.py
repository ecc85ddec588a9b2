"""Our own small supervisor: starts the parts, knows each one's pid, and starts again what died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
LOOK_EVERY_SECONDS = 0.2


class Part:
    """One part of the product and, over time, the processes that play it. Each is a session of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self._command, self._environment = [sys.executable, *command], dict(environment)
        self._sessions: list[int] = []
        self.start()

    @property
    def starts(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=out, stderr=out, start_new_session=True
            )
        self._sessions.append(self.process.pid)

    def start_if_dead(self) -> None:
        if self.process.poll() is not None:
            self.start()

    def children(self) -> list[psutil.Process]:
        """By pid; none while it is down."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return sorted(found, key=lambda child: child.pid)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def end(self) -> None:
        """SIGKILL for everything it ever started."""
        for session in self._sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        self.process.wait(10)


class Keeper(threading.Thread):
    """Looks after all parts until `stop`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(daemon=True, name="keeper")
        self._parts, self._over = parts, threading.Event()

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_SECONDS):
            for part in self._parts:
                part.start_if_dead()

    def stop(self) -> None:
        self._over.set()
        self.join()
