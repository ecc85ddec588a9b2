"""The real worker, whose handler of failed payments does as little as can be: `celery -A bench.worker_app worker`."""

from __future__ import annotations

import functools
import os
import time

import redis
from sqlalchemy.orm import Session

from bench.latency import STARTED
from tasks.billing import payments
from tasks.handler import Attempt, FollowUp


@functools.cache
def effects(pid: int) -> redis.Redis:
    """One for each process: connections must not be shared over a fork."""
    return redis.Redis.from_url(os.environ["REDIS_URL"])


def count_one(_attempt: Attempt, _db: Session) -> list[FollowUp]:
    effects(os.getpid()).incr("effects")
    return []


def nothing(_attempt: Attempt, _db: Session) -> list[FollowUp]:
    return []


def stamp(_attempt: Attempt, _db: Session) -> list[FollowUp]:
    now = time.time()
    effects(os.getpid()).rpush(STARTED, now)
    return []


def wait(_attempt: Attempt, db: Session) -> list[FollowUp]:
    """As for a peer that is called."""
    db.commit()
    time.sleep(0.05)
    return []


EFFECTS = {"count": count_one, "nothing": nothing, "stamp": stamp, "wait": wait}
payments.payment_failed = EFFECTS[os.environ["BENCH_EFFECT"]]  # type: ignore[assignment]

from workers import signals  # noqa: E402  last, for workers.app registers what it finds there
from workers.app import app  # noqa: E402

signals.ENDS_JOBS |= {"celery.concurrency.thread", "celery.concurrency.gevent"}  # to be measured, not to be run
if os.environ.get("BENCH_PREFETCH") == "on":
    app.conf.worker_disable_prefetch = False
