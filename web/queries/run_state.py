"""The state of a run that asks Stripe page by page: reconcile, and the comparison of subscriptions."""

from __future__ import annotations

from settings import Settings
from tasks.models import Reconcile, SubscriptionSync


def run_state(settings: Settings, row: Reconcile | SubscriptionSync | None, *, running: bool) -> tuple[str, str | None]:
    """off, never_run, running, ok or failing; and the reason if it is off or failing."""
    if not settings.stripe_api_key:
        return "off", "STRIPE_API_KEY is not set"
    if row is None:
        return "never_run", None
    if row.failure:
        return "failing", row.failure
    return "running" if running else "ok", None
