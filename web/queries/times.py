"""How the API tells a time of the database."""

from __future__ import annotations

from datetime import datetime


def iso(at: datetime | None) -> str | None:
    """As ISO 8601 has it; None where there is none."""
    return at.isoformat() if at else None
