"""An event: a fact at its sender, unique by (source, id)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted webhook, exactly as it was signed.

    `type` is the sender's word for what happened (`invoice.payment_failed`); `body` the raw bytes of the request.
    """

    source: str
    id: str
    type: str
    body: bytes
    received_ms: int = 0  # the store's clock, when it was recorded
