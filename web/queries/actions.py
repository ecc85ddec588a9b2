"""What people do to a job by hand, from wherever they do it; the record's audit trail has it, and the log."""

from __future__ import annotations

import structlog

from inbox.store import Store
from tasks import broker

log = structlog.get_logger()


def replay(store: Store, job: str, by: str) -> str:
    """Have it run again. Answers "replayed", or the record's word why not."""
    bells = store.replay(job, by)
    if isinstance(bells, str):
        return bells
    broker.ring(bells)
    log.info("replayed", job=job, by=by)
    return "replayed"


def discard(store: Store, job: str, by: str, why: str) -> str:
    """Put it away. Answers "discarded", or the record's word why not. What they wrote as the reason is not logged."""
    if word := store.discard(job, by, why):
        return word
    log.info("discarded", job=job, by=by)
    return "discarded"
