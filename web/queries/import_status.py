"""How far our subscriptions have been compared with Stripe's, in an import or in the hourly run."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from settings import Settings
from tasks.models import SubscriptionSync
from web.queries.run_state import run_state
from web.times import iso


def load_status(settings: Settings, db: Session) -> dict[str, Any]:
    """The newest run, with the reason if it is off or failing. `state`: off, never_run, running, ok or failing."""
    row = db.get(SubscriptionSync, "stripe")
    state, reason = run_state(settings, row, running=row is not None and row.began is not None)
    return {
        "state": state,
        "reason": reason,
        "imports": row.imports if row else False,
        "dry_run": row.dry_run if row else False,
        "listed": row.listed if row else 0,
        "differing": row.differing if row else 0,
        "tried_at": iso(row.tried_at) if row else None,
        "finished_at": iso(row.finished_at) if row else None,
        "imported_at": iso(row.imported_at) if row else None,
    }
