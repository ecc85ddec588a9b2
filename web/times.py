"""Times of the database, as the API writes them."""

from __future__ import annotations

from datetime import datetime


def iso(at: datetime | None) -> str | None:
    """The time in ISO 8601, or None."""
    return at.isoformat() if at else None
