"""The overview: alerts, counters, plots, queues and the latest dead letters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from inbox import alert_state, find, queries, statistics
from inbox.find import Filter
from inbox.store import Store
from tasks.routes import QUEUES
from web.console.jinja_filters import age, clock

SPANS = {"1h": 3_600_000, "24h": 86_400_000}
BARS = 60
DEAD_ROWS = 5
SWEEP_LATE_MS = 15_000


@dataclass(frozen=True, slots=True)
class Plot:
    """A bar chart. `top` labels the upper end of its scale."""

    name: str
    unit: str
    top: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: position, width and height in percent of the chart, and its tooltip."""

    left: float
    width: float
    height: float
    label: str


def register(pages: Blueprint, store: Store) -> None:
    """/console/"""

    @pages.get("/")
    def overview() -> str:
        span = request.args.get("span", "1h")
        span_ms = SPANS.get(span, SPANS["1h"])
        now = store.now_ms()
        arrived = statistics.count_arrivals(store, now - span_ms, now, BARS)
        return render_template(
            "overview.html",
            span=span,
            spans=SPANS,
            stats=queries.stats(store),
            memory=store.memory(),
            queues=_queues(store, now),
            dead_letters=find.find_page(store, "dead", Filter(), DEAD_ROWS).rows,
            last_minute=statistics.count_arrivals(store, now - 60_000, now, 1)[0],
            sweep_age=_age(queries.last_sweep_ms(store), now),
            sweep_late_ms=SWEEP_LATE_MS,
            now=now,
            alerts=[one.message for one in alert_state.load_alerts(store).alerts.values() if not one.quiet_since],
            plots=_plots(arrived, statistics.samples(store, now - span_ms), now - span_ms, span_ms),
        )


def _plots(arrived: list[int], samples: list[dict[str, int]], start: int, span_ms: int) -> list[Plot]:
    per_bar = "per " + _bar_span(span_ms)
    return [
        _plot("Events accepted", per_bar, arrived, start, span_ms),
        _plot("Jobs succeeded", per_bar, _increases(samples, "succeeded", start, span_ms), start, span_ms),
        _plot("Failed attempts", per_bar, _increases(samples, "failed", start, span_ms), start, span_ms),
        _plot("Rejected", per_bar, _increases(samples, "rejected", start, span_ms), start, span_ms),
        _plot("Unfinished jobs", "", _maxima(samples, "unfinished", start, span_ms), start, span_ms),
        _plot("Oldest unfinished", "", _maxima(samples, "age", start, span_ms), start, span_ms, label=age),
        _plot("Dead letters", "", _maxima(samples, "dead", start, span_ms), start, span_ms),
    ]


def _bar_span(span_ms: int) -> str:
    minutes = span_ms // BARS // 60_000
    return "minute" if minutes == 1 else f"{minutes} min"


def _queues(store: Store, now: int) -> list[dict[str, Any]]:
    """Per queue: unfinished jobs, and pending ones (due, but not taken by a worker yet), with the oldest's age (ms)."""
    names = statistics.with_unknown_queues(store, QUEUES)
    unfinished, pending = statistics.unfinished_by_queue(store, names), statistics.pending_by_queue(store, names)
    return [
        {
            "name": name,
            "unfinished": unfinished[name][0],
            "oldest_unfinished": _age(unfinished[name][1], now),
            "pending": pending[name][0],
            "oldest_pending": _age(pending[name][1], now),
        }
        for name in names
    ]


def _age(at: int | None, now: int) -> int | None:
    return None if at is None else max(now - at, 0)


def _plot(
    name: str, unit: str, values: list[int], start: int, span_ms: int, *, label: Callable[[int], str] = str
) -> Plot:
    top, width, bar_ms = max([*values, 1]), 100 / len(values), span_ms // BARS
    bars = [
        Bar(i * width, width, 100 * value / top, f"{clock(start + i * bar_ms)}: {label(value)}")
        for i, value in enumerate(values)
    ]
    return Plot(name, unit, label(top), bars)


def _increases(samples: list[dict[str, int]], name: str, start: int, span_ms: int) -> list[int]:
    """How much a counter grew, per bar. A counter that fell, because a job was replayed, counts as 0."""
    found = [0] * BARS
    for before, after in itertools.pairwise(samples):
        found[_bar_index(after, start, span_ms)] += max(after.get(name, 0) - before.get(name, 0), 0)
    return found


def _maxima(samples: list[dict[str, int]], name: str, start: int, span_ms: int) -> list[int]:
    """The largest sample per bar."""
    found = [0] * BARS
    for sample in samples:
        i = _bar_index(sample, start, span_ms)
        found[i] = max(found[i], sample.get(name, 0))
    if samples and _bar_index(samples[-1], start, span_ms) == BARS - 2:
        found[-1] = samples[-1].get(name, 0)  # the current minute has no sample yet
    return found


def _bar_index(sample: dict[str, int], start: int, span_ms: int) -> int:
    return min((sample["at"] - start) // (span_ms // BARS), BARS - 1)
