"""Python processes for tests, forked from one that has imported most modules: a worker starts for a fraction of the
CPU. Each is a process of its own, with its own environment, files and signals, and is killed like any other.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    *("alembic.command", "apprise", "celery.apps.worker", "celery.bin.celery", "celery.concurrency.prefork"),
    *("celery.worker.consumer", "celery.worker.loops", "flask", "httptools", "kombu.transport.pyamqp"),
    *("kombu.transport.redis", "msgspec", "psycopg", "pydantic", "redis.asyncio", "requests", "sqlalchemy.orm"),
    *("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "standardwebhooks", "stripe"),
    *("structlog", "uvicorn", "uvloop", "zstandard", __name__),
)
# Of our own modules those that do not read the environment when they are imported.
OURS = tuple(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("inbox", "settings", "tasks", "telemetry", "web")
    for file in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in file.parts and file.name != "__main__.py"
)
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*LIBRARIES, *OURS])


class ForkedProcess:
    """`python <command>` with the methods of subprocess.Popen that tests use; `command` begins with -m."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        option, *module_and_arguments = command
        assert option == "-m", command
        arguments = (module_and_arguments, dict(environment), log, cwd)
        self._process = _context.Process(target=_run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(module_and_arguments: list[str], environment: dict[str, str], log: Path, cwd: Path) -> None:
    """In the new process: what `python -m` does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, source in enumerate((os.open(os.devnull, os.O_RDONLY), file, file)):
        os.dup2(source, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  multiprocessing has replaced it
    sys.argv = module_and_arguments
    sys.path.insert(0, str(cwd))
    try:
        runpy.run_module(module_and_arguments[0], run_name="__main__", alter_sys=True)
    finally:  # multiprocessing ends the process without it
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
