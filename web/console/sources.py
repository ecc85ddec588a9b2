"""Sources: use of each secret, rejected deliveries by reason, and the last reconcile with Stripe."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, render_template
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from web.queries import reconcile_status
from web.receiver.sources import Source, delivery_stats


def register(
    pages: Blueprint,
    settings: Settings,
    configured: Mapping[str, Source],
    store: Store,
    sessions: Callable[[], Session],
) -> None:
    """/console/sources"""

    @pages.get("/sources")
    def sources() -> str:
        try:
            with sessions() as db:
                reconcile = reconcile_status.load_status(settings, store, db)
        except SQLAlchemyError:
            reconcile = None
        rows = delivery_stats(configured, queries.deliveries(store))
        return render_template("sources.html", sources=rows, reconcile=reconcile, now=store.now_ms())
