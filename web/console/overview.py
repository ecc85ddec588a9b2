"""The first page: how much comes in, how much is owed, for how long, and what went wrong."""

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
LETTERS = 5
SWEEP_LATE_MS = 15_000


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars over a span of time; `top` is what the highest stands for."""

    name: str
    unit: str
    top: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot: where it stands and how high, in parts of 100, and what it says."""

    left: float
    width: float
    height: float
    words: str


def register(pages: Blueprint, store: Store) -> None:
    """/console/"""

    @pages.get("/")
    def overview() -> str:
        span = request.args.get("span", "1h")
        span_ms = SPANS.get(span, SPANS["1h"])
        now = store.now_ms()
        arrived = statistics.arrivals(store, now - span_ms, now, BARS)
        return render_template(
            "overview.html",
            span=span,
            spans=SPANS,
            stats=queries.stats(store),
            memory=store.memory(),
            queues=_queues(store, now),
            letters=find.step(store, "dead", Filter(), LETTERS).rows,
            last_minute=statistics.arrivals(store, now - 60_000, now, 1)[0],
            sweep_age=_sweep_age(store, now),
            sweep_late_ms=SWEEP_LATE_MS,
            now=now,
            wrong=[one.words for one in alert_state.seen(store).standing.values() if not one.calm],
            plots=_plots(arrived, statistics.samples(store, now - span_ms), now - span_ms, span_ms),
        )


def _plots(arrived: list[int], samples: list[dict[str, int]], start: int, span_ms: int) -> list[Plot]:
    each = "per " + _step(span_ms)
    return [
        _plot("Events taken in", each, arrived, start, span_ms),
        _plot("Jobs done", each, _more(samples, "done", start, span_ms), start, span_ms),
        _plot("Attempts failed", each, _more(samples, "failed", start, span_ms), start, span_ms),
        _plot("Rejected", each, _more(samples, "rejected", start, span_ms), start, span_ms),
        _plot("Jobs owed", "", _most(samples, "owed", start, span_ms), start, span_ms),
        _plot("Longest owed", "", _most(samples, "age", start, span_ms), start, span_ms, told=age),
        _plot("Dead letters", "", _most(samples, "dead", start, span_ms), start, span_ms),
    ]


def _step(span_ms: int) -> str:
    minutes = span_ms // BARS // 60_000
    return "minute" if minutes == 1 else f"{minutes} min"


def _queues(store: Store, now: int) -> list[dict[str, Any]]:
    owed, waiting = statistics.owed(store, QUEUES), statistics.queues(store, QUEUES)
    return [
        {
            "name": name,
            "owed": owed[name][0],
            "age": _since(owed[name][1], now),
            "waiting": waiting[name][0],
            "waits": _since(waiting[name][1], now),
        }
        for name in QUEUES
    ]


def _since(at: int | None, now: int) -> int | None:
    return None if at is None else max(now - at, 0)


def _sweep_age(store: Store, now: int) -> int | None:
    return _since(queries.swept_ms(store), now)


def _plot(
    name: str, unit: str, numbers: list[int], start: int, span_ms: int, *, told: Callable[[int], str] = str
) -> Plot:
    most, width, step = max([*numbers, 1]), 100 / len(numbers), span_ms // BARS
    bars = [
        Bar(i * width, width, 100 * number / most, f"{clock(start + i * step)}: {told(number)}")
        for i, number in enumerate(numbers)
    ]
    return Plot(name, unit, told(most), bars)


def _more(samples: list[dict[str, int]], name: str, start: int, span_ms: int) -> list[int]:
    """By how much a count had grown at the end of each step; a replay takes its job back, which counts for nothing."""
    found = [0] * BARS
    for before, after in itertools.pairwise(samples):
        found[_at(after, start, span_ms)] += max(after.get(name, 0) - before.get(name, 0), 0)
    return found


def _most(samples: list[dict[str, int]], name: str, start: int, span_ms: int) -> list[int]:
    """The greatest figure that was sampled in each step of the span."""
    found = [0] * BARS
    for sample in samples:
        i = _at(sample, start, span_ms)
        found[i] = max(found[i], sample.get(name, 0))
    if samples and _at(samples[-1], start, span_ms) == BARS - 2:
        found[-1] = samples[-1].get(name, 0)  # this step has no sample yet
    return found


def _at(sample: dict[str, int], start: int, span_ms: int) -> int:
    return min((sample["at"] - start) // (span_ms // BARS), BARS - 1)
