"""What the last look at Stripe's own list of events found: for the API and for Prometheus."""

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
from web.queries.times import iso


def load_status(settings: Settings, store: Store, db: Session) -> dict[str, Any]:
    """off, never, at work, ok or failing, with the reason where there is one; times in ISO 8601, `seen_until` in
    Stripe's seconds since 1970; and how many events were ever `missed`: Stripe had them, and they had not arrived."""
    row = db.get(Reconcile, "stripe")
    word, reason = _state(settings, row)
    return {
        "state": word,
        "reason": reason,
        "tried_at": row.tried_at.isoformat() if row else None,
        "finished_at": iso(row.finished_at) if row else None,
        "seen_until": row.seen_until if row else None,
        "missed": queries.stats(store)["missed"],
    }


def _state(settings: Settings, row: Reconcile | None) -> tuple[str, str | None]:
    if not settings.stripe_api_key:
        return "off", "STRIPE_API_KEY is not set"
    if row is None:
        return "never", None
    if row.failure:
        return "failing", row.failure
    return "ok" if row.until is None else "at work", None


class ReconcileMetrics(Collector):
    """When it last finished, and whether it fails now; nothing before the first look."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        with Session(self._engine) as db:
            row = db.get(Reconcile, "stripe")
        if row is None:
            return
        finished = row.finished_at.timestamp() if row.finished_at else 0
        name = "holdfast_reconcile"
        yield GaugeMetricFamily(f"{name}_finished_seconds", "When a look last finished, since 1970", value=finished)
        yield GaugeMetricFamily(f"{name}_failing", "1: the last try failed", value=bool(row.failure))
