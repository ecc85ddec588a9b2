"""The first page: how much comes in, how much is owed, for how long, and what went wrong."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from inbox import figures, find, look
from inbox.find import Filter
from inbox.store import Store
from tasks.routes import QUEUES
from web.console.shown import clock

SPANS = {"1h": 3_600_000, "24h": 86_400_000}
BARS = 60
LETTERS = 5
SWEEP_LATE_MS = 15_000


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
        samples = figures.samples(store, now - span_ms)
        arrived = figures.arrivals(store, now - span_ms, now, BARS)
        return render_template(
            "overview.html",
            span=span,
            spans=SPANS,
            stats=look.stats(store),
            memory=store.memory(),
            queues=_queues(store, now),
            letters=find.step(store, "dead", Filter(), LETTERS).rows,
            last_minute=figures.arrivals(store, now - 60_000, now, 1)[0],
            sweep_age=_sweep_age(store, now),
            sweep_late_ms=SWEEP_LATE_MS,
            plots=[
                ("Events taken in", "per " + _step(span_ms), _bars(arrived, now - span_ms, span_ms // BARS)),
                ("Jobs done", "per " + _step(span_ms), _done(samples, now - span_ms, span_ms)),
                ("Jobs owed", "", _sampled(samples, "owed", now - span_ms, span_ms)),
                ("Dead letters", "", _sampled(samples, "dead", now - span_ms, span_ms)),
            ],
        )


def _step(span_ms: int) -> str:
    minutes = span_ms // BARS // 60_000
    return "minute" if minutes == 1 else f"{minutes} min"


def _queues(store: Store, now: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "owed": owed, "age": None if oldest is None else max(now - oldest, 0)}
        for name, (owed, oldest) in figures.queues(store, QUEUES).items()
    ]


def _sweep_age(store: Store, now: int) -> int | None:
    swept = look.swept_ms(store)
    return None if swept is None else max(now - swept, 0)


def _bars(numbers: list[int], start: int, step: int) -> list[Bar]:
    most, width = max([*numbers, 1]), 100 / len(numbers)
    return [
        Bar(i * width, width, 100 * number / most, f"{clock(start + i * step)}: {number}")
        for i, number in enumerate(numbers)
    ]


def _done(samples: list[dict[str, int]], start: int, span_ms: int) -> list[Bar]:
    """How many more were done at the end of each step; a replay takes its job back, which counts for nothing."""
    step = span_ms // BARS
    found = [0] * BARS
    for before, after in itertools.pairwise(samples):
        found[min((after["at"] - start) // step, BARS - 1)] += max(after["done"] - before["done"], 0)
    return _bars(found, start, step)


def _sampled(samples: list[dict[str, int]], name: str, start: int, span_ms: int) -> list[Bar]:
    """One bar for each step of the span: the greatest figure that was sampled in it."""
    step = span_ms // BARS
    found = [0] * BARS
    for sample in samples:
        i = min((sample["at"] - start) // step, BARS - 1)
        found[i] = max(found[i], sample[name])
    return _bars(found, start, step)
