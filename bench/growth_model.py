"""What bench/growth.py measures and bench/growth_page.py shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """Milliseconds at so many events; `pages`: each of PAGES over HTTP."""

    events: int
    ack_p50: float
    ack_p99: float
    sweep_p50: float
    sweep_p99: float
    pages: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """Events of one kind, level by level. `bytes_each`: what the server's memory grew by; `restart_seconds`: from its
    start to its first answer, at the last level."""

    levels: tuple[Level, ...]
    bytes_each: float
    restart_seconds: float


@dataclass(frozen=True, slots=True)
class Growth:
    """`payload`, `compressed`: bytes of a body; `drained`: jobs a second of WORKERS processes where most are owed."""

    owed: Kind
    stored: Kind
    remembered: Kind
    payload: int
    compressed: int
    drained: float
