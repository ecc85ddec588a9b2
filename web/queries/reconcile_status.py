"""The outcome of the last reconcile with Stripe's list of events: for the API, the console and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from tasks.models import Reconcile
from web.queries.run_state import run_state
from web.times import iso


def load_status(settings: Settings, store: Store, db: Session) -> dict[str, Any]:
    """The state of the last reconcile, with the reason if it is off or failing.

    `state`: off, never_run, running, ok or failing. Times are in ISO 8601, `seen_until` in seconds since 1970 as Stripe
    has it. `missed`: how many events reconciles have ever found that had not been delivered.
    """
    row = db.get(Reconcile, "stripe")
    state, reason = run_state(settings, row, running=row is not None and row.until is not None)
    return {
        "state": state,
        "reason": reason,
        "tried_at": row.tried_at.isoformat() if row else None,
        "finished_at": iso(row.finished_at) if row else None,
        "seen_until": row.seen_until if row else None,
        "missed": queries.stats(store)["missed"],
    }


class ReconcileMetrics(Collector):
    """When a reconcile last finished, and whether the last one failed; no samples before the first one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        with Session(self._engine) as db:
            row = db.get(Reconcile, "stripe")
        if row is None:
            return
        finished = row.finished_at.timestamp() if row.finished_at else 0
        name = "holdfast_reconcile"
        yield GaugeMetricFamily(f"{name}_finished_seconds", "Unix time at which a reconcile last finished", finished)
        yield GaugeMetricFamily(f"{name}_failing", "1 if the last reconcile failed", bool(row.failure))
