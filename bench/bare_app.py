"""Celery tasks without Holdfast, with its Celery settings: the lower limit of a worker's cost.

BENCH_EFFECT=sql adds the one durable SQL row that makes an effect happen once, written with sqlite3 directly.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import time

from celery import Celery

app = Celery("bare")
app.config_from_object("celeryconfig")


@functools.cache
def database() -> sqlite3.Connection:
    """Tuned like tasks/db/engine.py."""
    connection = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS bare (job_id TEXT, follow_ups TEXT, done_at TEXT)")
    return connection


@app.task(name="tasks.payments.payment_failed")  # type: ignore[untyped-decorator]
def task(job_id: str) -> None:
    """Has the name and the argument of Holdfast's messages."""
    if os.environ["BENCH_EFFECT"] == "sql":
        database().execute("INSERT INTO bare VALUES (?, '[]', ?)", (job_id, time.time()))
