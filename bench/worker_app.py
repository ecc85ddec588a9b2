"""The real worker with a minimal handler for failed payments: `celery -A bench.worker_app worker`."""

from __future__ import annotations

import os
import time

import redis
from sqlalchemy.orm import Session

from tasks.billing import payments
from tasks.handler import Attempt, FollowUp

EFFECT = os.environ["BENCH_EFFECT"]
CLIENT = redis.Redis.from_url(os.environ["REDIS_URL"])


def handle(_attempt: Attempt, _db: Session) -> list[FollowUp]:
    now = time.time()
    if EFFECT == "count":
        CLIENT.incr("effects")
    elif EFFECT == "stamp":
        CLIENT.rpush("started", now)
    return []


payments.payment_failed = handle  # type: ignore[assignment]  # the names of the arguments differ

from workers.app import app  # noqa: E402  last: it registers the handlers it finds

__all__ = ["app"]
