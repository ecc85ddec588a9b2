"""The real worker with a minimal handler for failed payments: `celery -A bench.worker_app worker`."""

from __future__ import annotations

import functools
import os
import time

import redis
from sqlalchemy.orm import Session

from bench.rounds import STARTED
from tasks.billing import payments
from tasks.handler import Attempt, FollowUp

EFFECT = os.environ["BENCH_EFFECT"]


@functools.cache
def client(_pid: int) -> redis.Redis:
    """One client per process: connections must not be shared across a fork."""
    return redis.Redis.from_url(os.environ["REDIS_URL"])


def handle(_attempt: Attempt, _db: Session) -> list[FollowUp]:
    now = time.time()
    if EFFECT == "count":
        client(os.getpid()).incr("effects")
    elif EFFECT == "stamp":
        client(os.getpid()).rpush(STARTED, now)
    return []


payments.payment_failed = handle  # type: ignore[assignment]  # the names of the arguments differ

from workers.app import app  # noqa: E402  last: it registers the handlers it finds

__all__ = ["app"]
