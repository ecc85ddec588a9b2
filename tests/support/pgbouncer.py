"""A real PgBouncer in front of a real Postgres, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path

import psycopg

from dev.stack.postgres import Postgres
from dev.stack.servers import Server, free_port, wait_until

BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer(Server):
    """Each transaction goes to any of `processes` server processes."""

    def __init__(self, postgres: Postgres, processes: int = 2) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="holdfast-pgb-")))
        self.port, self._postgres = free_port(), postgres
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/test"
        (self.folder / "pgbouncer.ini").write_text(f"""
[databases]
test = host={postgres.folder} port=5432 dbname=test user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {processes}
max_client_conn = 200
""")

    def __enter__(self) -> PgBouncer:
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None  # it refuses to run as root
        self.folder.chmod(0o755)
        self.spawn([str(BINARY), self.folder / "pgbouncer.ini"], user=user, cwd=self.folder)
        wait_until(self._answers, seconds=30, what=f"PgBouncer; see {self.folder}/server.log")
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="test").close()
        except psycopg.OperationalError:
            return False
        return True
