"""The bare task, with the one durable SQL row that makes an effect happen once: by sqlite3 itself, in our database."""

from __future__ import annotations

import functools
import os
import sqlite3
import time

from celery import Celery

app = Celery("bare")
app.config_from_object("celeryconfig")


@functools.cache
def database(pid: int) -> sqlite3.Connection:
    """One for each process, tuned as tasks/db/engine.py does."""
    connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE IF NOT EXISTS bare (job_id TEXT, follow_ups TEXT, done_at TEXT)")
    return connection


@app.task(name="tasks.payments.payment_failed")  # type: ignore[untyped-decorator]
def one_row(job_id: str) -> None:
    """Committed, and on disk, when it returns."""
    database(os.getpid()).execute("INSERT INTO bare VALUES (?, '[]', ?)", (job_id, time.time()))
