"""`make profile`: where the time goes in a receiver and in a worker under load, as flame graphs in var/profile.

py-spy looks 500 times a second from outside, and counts the threads that hold Python's lock: what Python itself costs.
Waiting does not count, nor does what runs without the lock, as an fsync of SQLite does.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.backlog import holdfast
from bench.contenders import Holdfast
from bench.install import install
from bench.load import wrk
from bench.processes import ROOT, Part
from dev.stack.servers import Valkey
from dev.stack.signals import end_by_exception

SECONDS = 8
JOBS = 30_000  # enough to keep a worker busy for as long


def main() -> None:
    end_by_exception()
    installed, folder = ROOT / "var" / "bench", ROOT / "var" / "profile"
    install(installed)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        valkey = Valkey(folder / "valkey").start()
        stack.callback(valkey.kill)
        ours = Holdfast(valkey, installed, folder)
        ours.prepare()
        ours.wipe()
        _receiver(ours, stack, folder / "receiver.svg")
        ours.wipe()
        _worker(ours, stack, folder / "worker.svg")


def _receiver(ours: Holdfast, stack: ExitStack, picture: Path) -> None:
    web = ours.start(ours.web(), "web")
    stack.callback(web.stop)
    web.wait_for(ours.port)
    wrk(ours.port, 1, 32)
    watching = _watch(ours, web, picture)
    wrk(ours.port, SECONDS + 1, 32)
    _end(watching, picture)


def _worker(ours: Holdfast, stack: ExitStack, picture: Path) -> None:
    command, left = holdfast(ours, JOBS)
    worker = ours.start(command, "worker")
    stack.callback(worker.stop)
    while left() > JOBS * 0.95:
        pass
    _end(_watch(ours, worker, picture), picture)


def _watch(ours: Holdfast, part: Part, picture: Path) -> subprocess.Popen[str]:
    spy: list[str | Path] = [
        ours.installed / "peers" / "bin" / "py-spy",
        "record",
        "--subprocesses",
        "--gil",
        "--rate",
        "500",
    ]
    what: list[str | Path] = ["--pid", str(part.process.pid), "--duration", str(SECONDS), "--output", picture]
    return subprocess.Popen([*spy, *what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _end(watching: subprocess.Popen[str], picture: Path) -> None:
    said, _ = watching.communicate(timeout=SECONDS + 60)
    if watching.returncode:
        sys.exit(
            f"py-spy could not look ({said.strip()[-300:]}): on Linux it takes root, or kernel.yama.ptrace_scope=0"
        )
    print(f"{picture.relative_to(ROOT)}: open it in a browser")


if __name__ == "__main__":
    main()
