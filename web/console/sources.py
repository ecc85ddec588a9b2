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

# What each reason of web/errors.py means, and what to check.
REJECTIONS = {
    "body": "too large, incomplete or not text",
    "unsigned": "no signature, or an unreadable one: usually random traffic",
    "signature": "matches no secret: compare the secret here with the sender's",
    "timestamp": "signed too long ago or in the future: check the clocks",
    "payload": "signed, but not a valid event: the sender's format may have changed",
    "mode": "a test event in live mode, or the reverse (STRIPE_MODE)",
    "unavailable": "answered with 503 because the store was unavailable; the sender retries",
}


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
        rows = delivery_stats(configured, queries.delivery_counts(store))
        now = store.now_ms()
        return render_template("sources.html", sources=rows, reconcile=reconcile, rejections=REJECTIONS, now=now)
