"""The whole of Holdfast on this machine: embedded stores, receiver, workers, Flower, simulators, under supervisord."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from dev.stack.environment import Ports, StackError, stack_environment
from dev.stack.parts import Part, parts, supervisor_config
from dev.stack.servers import answers
from dev.stack.signals import undisturbed

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 60.0

# Lines of supervisord's log.
SPAWNED = re.compile(r"spawned: '([^']+)' with pid (\d+)")
RUNNING = re.compile(r"success: (\S+) entered RUNNING state")
EXITED = re.compile(r"exited: (\S+) \((?:terminated by )?([\w ]+)")


def lock_folder(folder: Path) -> IO[str]:
    """Lock the data folder, because two stacks on it would share a store. Raises StackError if it is locked."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StackError(f"the data in {folder} is in use by a running stack; stop that first") from None
    return lock


class Stack:
    """The parts of one data folder, started and watched. `report` gets a line whenever a part dies or comes back.

    A part that died may leave children behind. They are killed, because they may keep its port; unless `keep_orphans`.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        own: Mapping[str, str],
        report: Callable[[str], None],
        *,
        keep_orphans: bool = False,
    ) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)  # it holds personal data
        for needed in ("logs", "valkey"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        self.folder, self.ports, self.report = folder, ports, report
        self.environ = stack_environment(folder, ports, own)
        self.parts: list[Part] = parts(folder, ports, self.environ)
        self.pids: dict[str, int] = {}
        self.starts: Counter[str] = Counter()
        self._keep_orphans, self._groups = keep_orphans, list[int]()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self.stop()

    def start(self) -> None:
        """Migrate, then start every part. Raises StackError when the migration fails."""
        self.migrate()
        config = self.folder / "supervisord.conf"
        config.write_text(supervisor_config(self.folder, REPOSITORY, self.parts))
        log = self.log("supervisord").open("w+")
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "dev.stack.supervise", str(config)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=REPOSITORY,
            env=self.environ,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop the parts in order
        )
        threading.Thread(target=self._listen, args=(self.log("supervisord").open(),), daemon=True).start()

    def wait_ready(self, seconds: float = 120, receiver: str = "/readyz") -> None:
        """Until every part can be used; `receiver` is the path of its health check. Raises StackError that names what
        was not ready."""
        end = time.monotonic() + seconds
        for what, ready in self._checks(receiver):
            while not ready():
                self.check_alive()
                time.sleep(0.1)
                if time.monotonic() > end:
                    raise StackError(f"waited {seconds:g} s for {what}; see the logs in {self.folder / 'logs'}")

    @property
    def flower_address(self) -> str:
        """With the user and the password."""
        user, _, password = self.environ["FLOWER_BASIC_AUTH"].partition(":")
        return f"{self.ports.flower_url} (user {user}, password {password})"

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """To a part and all its children. SIGKILL is what a machine that dies would do to them."""
        _signal_group(self.pids[name], number)

    def processes(self, name: str) -> list[psutil.Process]:
        """The main process of a part, then its children by pid; none while it is down."""
        try:
            main = psutil.Process(self.pids[name])
            return [main, *sorted(main.children(recursive=True), key=lambda child: child.pid)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """Stop all parts and wait; a part that does not stop in time is killed. May be called twice."""
        self._stopping = True
        if self._supervisor is None:
            return
        self._supervisor.terminate()
        try:
            self._supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
        for pid in self._groups:
            _signal_group(pid, signal.SIGKILL)
        self._supervisor = None

    def check_alive(self) -> None:
        """Raises StackError when the process runner itself has ended."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            raise StackError(f"the process runner ended; see {self.log('supervisord')}")

    def migrate(self) -> None:
        command = [sys.executable, "-m", "tasks.upgrade"]
        done = subprocess.run(command, cwd=REPOSITORY, env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"the database could not be migrated:\n{done.stdout}{done.stderr}".rstrip())

    def _checks(self, receiver: str) -> list[tuple[str, Callable[[], bool]]]:
        """What must be ready: its name, and a function that checks it."""
        ports, health = self.ports, f"{self.ports.receiver_url}{receiver}"
        checks = {
            "mail": (f"mail on port {ports.mail}", partial(_listens, ports.mail)),
            "documents": (f"documents on port {ports.documents}", partial(_listens, ports.documents)),
            "stripe": (f"stripe on port {ports.stripe}", partial(_listens, ports.stripe)),
            "receiver": (f"{health} to answer 200", partial(answers, health)),
            "flower": (f"Flower on port {ports.flower}", partial(answers, f"{ports.flower_url}/healthcheck")),
        }
        names = {part.name for part in self.parts}
        return [check for name, check in checks.items() if name in names]

    def _listen(self, log: IO[str]) -> None:
        """Follow supervisord's log: note the pid of each part, and report each death and each restart once."""
        down: set[str] = set()
        while not self._stopping:
            line = log.readline()
            if not line:
                time.sleep(0.1)
            elif spawned := SPAWNED.search(line):
                self.pids[spawned[1]] = int(spawned[2])
                self.starts[spawned[1]] += 1
                self._groups.append(int(spawned[2]))
            elif (running := RUNNING.search(line)) and running[1] in down:
                down.discard(running[1])
                self.report(f"{running[1]} is up again")
            elif (exited := EXITED.search(line)) and exited[1] not in down:
                down.add(exited[1])
                if not self._keep_orphans:
                    _signal_group(self.pids[exited[1]], signal.SIGKILL)
                self.report(f"{exited[1]} died ({exited[2]}), starting it again; its log: {self.log(exited[1])}")

    def log(self, part: str) -> Path:
        return self.folder / "logs" / f"{part}.log"


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Each part has its own process group, which may have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
