"""Who sends: which secret proves it, what was refused and why, and what Stripe had that never arrived."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, render_template
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from web.queries import reconcile_status
from web.receiver.sources import Source, traffic


def register(
    pages: Blueprint, settings: Settings, sources: Mapping[str, Source], store: Store, sessions: Callable[[], Session]
) -> None:
    """/console/senders"""

    @pages.get("/senders")
    def senders() -> str:
        try:
            with sessions() as db:
                looked = reconcile_status.state(settings, store, db)
        except SQLAlchemyError:
            looked = None
        shown = traffic(sources, queries.deliveries(store))
        return render_template("senders.html", senders=shown, reconcile=looked, now=store.now_ms())
