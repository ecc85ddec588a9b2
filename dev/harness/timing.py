"""How long things took: pure. Times are milliseconds since 1970, results seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outage:
    """A disturbance that happened, from `begun_ms` to `over_ms`, in milliseconds since 1970."""

    kind: str
    victim: str
    begin_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of an event. `kind` names it: payments.payment_failed, notify.receipt, …"""

    event_id: str
    kind: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class Spread:
    """p50, p99 and the maximum."""

    p50: float
    p99: float
    maximum: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f} / {self.maximum:.1f}"


def spread(values: Iterable[float]) -> Spread:
    """Of no values: all zero."""
    ordered = sorted(values) or [0.0]
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99)]
    return Spread(*(round(value, 2) for value in (*at, ordered[-1])))


def delays(acknowledged: Mapping[str, float], effects: Iterable[Effect]) -> list[float]:
    """Seconds from the acknowledgement of an event to each of its effects; 0 if the effect was first."""
    known = ((acknowledged.get(effect.event_id), effect.at_ms) for effect in effects)
    return [max(0.0, at_ms - ack) / 1000 for ack, at_ms in known if ack is not None]


@dataclass(frozen=True, slots=True)
class Recovery:
    """After one disturbance, in seconds from its start, so that its duration is included.

    flowing: until every kind of effect has happened again, by an attempt that started after the disturbance.
    caught_up: until every event that was acknowledged before its end has had all its effects.
    """

    kind: str
    held: float
    flowing: float
    caught_up: float


def recoveries(
    outages: Sequence[Outage], acknowledged: Mapping[str, float], effects: Iterable[Effect]
) -> list[Recovery]:
    """One for each disturbance. A kind of effect that did not happen again (the traffic had ended) is left out."""
    known = [(acknowledged[effect.event_id], effect) for effect in effects if effect.event_id in acknowledged]
    return [_recovery(one, known) for one in outages]


def _recovery(one: Outage, known: Sequence[tuple[float, Effect]]) -> Recovery:
    first: dict[str, float] = {}
    for _, effect in known:
        if effect.at_ms >= one.end_ms:
            first[effect.kind] = min(first.get(effect.kind, effect.at_ms), effect.at_ms)
    flowing = max(first.values(), default=one.end_ms)
    caught_up = max((effect.at_ms for ack, effect in known if ack <= one.end_ms), default=one.begin_ms)
    spans = (max(0.0, at_ms - one.begin_ms) for at_ms in (one.end_ms, flowing, caught_up))
    return Recovery(one.kind, *(round(span / 1000, 2) for span in spans))
