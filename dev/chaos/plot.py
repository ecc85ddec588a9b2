"""Acknowledgements and effects per second over time, with the disturbances marked: an SVG drawn by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from dev.harness.timing import Done

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 1200, 420, 50, 40, 40
ACKS, EFFECTS, HELD = "#1f6feb", "#d2691e", "#d0342c"


def plot(acks_ms: Iterable[float], effects_ms: Iterable[float], done: Sequence[Done], title: str) -> str:
    """The picture as text. All times are milliseconds since 1970."""
    acks, effects = list(acks_ms), list(effects_ms)
    begin = min([*acks, *effects, *(one.begun_ms for one in done)], default=0.0)
    end = max([*acks, *effects, *(one.over_ms for one in done)], default=1000.0)
    seconds = max(1, int((end - begin) / 1000) + 1)
    rates = [_per_second(times, begin, seconds) for times in (acks, effects)]
    top = max(1, *(max(rate) for rate in rates))
    across = (WIDTH - LEFT - 20) / seconds
    lines = [_line(rate, color, across, top) for rate, color in zip(rates, (ACKS, EFFECTS), strict=True)]
    marks = [_mark(one, begin, across) for one in done]
    return "\n".join([_head(title), *marks, *_axes(seconds, top, across), *lines, "</svg>", ""])


def _per_second(times_ms: Sequence[float], begin: float, seconds: int) -> list[int]:
    counted = Counter(int((at - begin) / 1000) for at in times_ms)
    return [counted[second] for second in range(seconds)]


def _head(title: str) -> str:
    words = (
        f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>'
        f'<text x="{LEFT}" y="32"><tspan fill="{ACKS}">acknowledged per second</tspan> · '
        f'<tspan fill="{EFFECTS}">effects per second</tspan> · <tspan fill="{HELD}">a disturbance</tspan></text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        f' font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{words}'
    )


def _axes(seconds: int, top: int, across: float) -> list[str]:
    floor, step = HEIGHT - BOTTOM, max(10, seconds // 120 * 10)
    ticks = [
        f'<text x="{LEFT + second * across:.1f}" y="{floor + 16}" text-anchor="middle">{second} s</text>'
        for second in range(0, seconds, step)
    ]
    frame = f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - 20}" fill="none" stroke="#888"/>'
    ends = f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top}</text>'
    return [frame, *ticks, ends, f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">0</text>']


def _line(rate: Sequence[int], color: str, across: float, top: int) -> str:
    tall = HEIGHT - TOP - BOTTOM
    points = (f"{LEFT + (i + 0.5) * across:.1f},{HEIGHT - BOTTOM - n / top * tall:.1f}" for i, n in enumerate(rate))
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _mark(one: Done, begin: float, across: float) -> str:
    x, wide = LEFT + (one.begun_ms - begin) / 1000 * across, max(1.5, (one.over_ms - one.begun_ms) / 1000 * across)
    name = f"<title>{escape(one.kind)}: {escape(one.victim)}</title>"
    shape = f'x="{x:.1f}" y="{TOP}" width="{wide:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
    return f'<rect {shape} fill="{HELD}" fill-opacity="0.18">{name}</rect>'
