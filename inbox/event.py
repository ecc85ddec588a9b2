"""An event: a fact at its sender, unique by (source, id). And an arrival of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from inbox.job import NewJob


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


class Arrival(NamedTuple):
    """What is to be recorded: the event, its jobs, and the name of the secret that proved who sent it, if one did."""

    event: Event
    jobs: Sequence[NewJob]
    secret: str = ""
