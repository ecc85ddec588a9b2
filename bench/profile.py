"""`make profile`: flame graphs of a receiver and a worker under load, in var/profile.

py-spy samples the processes 500 times a second and counts threads that hold the GIL: the cost of Python itself. Waiting
does not count, nor does code that runs without the GIL, such as an fsync of SQLite.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.backlog import fill_record
from bench.contenders import BIN, Command, Holdfast, holdfast_in
from bench.install import install
from bench.load import wrk
from bench.processes import ROOT, Part
from dev.stack.servers import wait_until
from dev.stack.signals import end_by_exception

SECONDS = 8
JOBS = 30_000  # enough to keep a worker busy for as long


def main() -> None:
    end_by_exception()
    install()
    with holdfast_in("profile") as ours, ExitStack() as stack:
        web = ours.start_web(stack)
        wrk(ours.port, 1, 32)  # warm up
        with _sampled(ours, web, "receiver.svg"):
            wrk(ours.port, SECONDS + 1, 32)
        web.stop()
        ours.wipe()
        fill_record(ours, JOBS)
        worker = ours.start(ours.worker, "worker")
        stack.callback(worker.stop)
        wait_until(lambda: ours.unfinished() < JOBS * 0.95, seconds=60, what=f"the first jobs; see {worker.log}")
        with _sampled(ours, worker, "worker.svg"):
            pass


@contextmanager
def _sampled(ours: Holdfast, part: Part, name: str) -> Iterator[None]:
    """Sample for SECONDS while the block runs, and after it if that is shorter."""
    picture = ours.folder / name
    options = ["--subprocesses", "--gil", "--rate", "500", "--pid", str(part.process.pid), "--duration", str(SECONDS)]
    command: Command = [BIN / "py-spy", "record", *options, "--output", picture]
    sampler = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield
    output, _ = sampler.communicate(timeout=SECONDS + 60)
    if sampler.returncode:
        hint = "on Linux it must run as root or with kernel.yama.ptrace_scope=0"
        sys.exit(f"py-spy failed ({output.strip()[-300:]}): {hint}")
    print(f"{picture.relative_to(ROOT)}: open it in a browser")


if __name__ == "__main__":
    main()
