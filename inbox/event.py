"""An event: a fact at its source, unique by (source, id)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from inbox.job import NewJob


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted webhook. `type` is the source's own name for what happened, such as `invoice.payment_failed`."""

    source: str
    id: str
    type: str
    body: bytes  # the raw bytes of the request, exactly as they were signed
    received_ms: int = 0  # by the store's clock; set when the event is recorded


class NewEvent(NamedTuple):
    """An event to be recorded, its jobs, and the name of the secret that verified it (empty without a signature).

    `signed` is a digest of what is signed, if its id is not part of that. A second event of the source with the same
    digest is a duplicate, whatever its id.
    """

    event: Event
    jobs: Sequence[NewJob]
    secret: str = ""
    signed: str = ""
