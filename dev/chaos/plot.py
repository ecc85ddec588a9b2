"""Chart of a chaos run: acknowledgements and effects per second over time, with the disturbances marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dev import plot as charts
from dev.harness.timing import Done


def plot(acks_ms: Iterable[float], effects_ms: Iterable[float], done: Sequence[Done], title: str) -> str:
    """Returns the SVG text. All times are milliseconds since 1970."""
    acks, effects = list(acks_ms), list(effects_ms)
    begin = min([*acks, *effects, *(one.begun_ms for one in done)], default=0.0)
    end = max([*acks, *effects, *(one.over_ms for one in done)], default=1000.0)
    rates = {
        name: _per_second(times, begin, end)
        for name, times in (("acknowledged per second", acks), ("effects per second", effects))
    }
    spans = [(f"{it.kind}: {it.victim}", (it.begun_ms - begin) / 1000, (it.over_ms - begin) / 1000) for it in done]
    return charts.lines(title, rates, ("seconds", ""), dots=False, spans=("disturbances", spans))


def _per_second(times_ms: Sequence[float], begin: float, end: float) -> list[tuple[float, float]]:
    counts = Counter(int((at - begin) / 1000) for at in times_ms)
    return [(second + 0.5, counts[second]) for second in range(int((end - begin) / 1000) + 1)]
