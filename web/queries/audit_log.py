"""What a person can do to a job: replay or discard it. Each action is recorded in the audit log and logged."""

from __future__ import annotations

import structlog

from inbox.store import Store
from tasks import broker
from web.auth import count_replay

log = structlog.get_logger()


def replay(store: Store, job: str, by: str) -> str:
    """Run the job again. Returns "replayed", or the record's code for why it cannot. Raises HttpError, 429, if the key
    has replayed too many."""
    count_replay(store, by)
    bells = store.replay(job, by)
    if isinstance(bells, str):
        return bells
    broker.ring(bells)
    log.info("replayed", job=job, by=by)
    return "replayed"


def discard(store: Store, job: str, by: str, reason: str) -> str:
    """Discard the dead letter. Returns "discarded", or the record's code for why it cannot. `reason` is not logged."""
    if code := store.discard(job, by, reason):
        return code
    log.info("discarded", job=job, by=by)
    return "discarded"
