"""Pictures of figures: SVG drawn by hand, in the manner of dev/chaos/plot.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#1f6feb", "#d2691e", "#8c8c8c", "#d0342c")
WIDTH, LEFT, RIGHT, BAR, HEAD = 1000, 110, 90, 26, 52


def bars(title: str, rows: Mapping[str, Sequence[float]], parts: Sequence[str], unit: str) -> str:
    """A bar for each row, made of `parts` one after the other, with its sum at the end."""
    most = max((sum(values) for values in rows.values()), default=1) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    drawn = [_bar(i, name, values, scale, unit) for i, (name, values) in enumerate(rows.items())]
    return "\n".join([_head(title, parts, HEAD + BAR * len(rows) + 10), *drawn, "</svg>", ""])


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """A line for each of `series`, over one axis from 0; `across` and `up` name the axes."""
    tall, floor = 260, HEAD + 260
    points = [point for one in series.values() for point in one]
    right, top = max((x for x, _ in points), default=1) or 1, max((y for _, y in points), default=1) * 1.1 or 1
    wide = WIDTH - LEFT - RIGHT
    drawn = []
    for (_, one), color in zip(series.items(), COLORS, strict=False):
        path = " ".join(f"{LEFT + x / right * wide:.1f},{floor - y / top * tall:.1f}" for x, y in one)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        drawn += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="{color}"/>' for p in path.split()]
    frame = f'<path d="M{LEFT} {HEAD}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="#888"/>'
    ends = [
        f'<text x="{LEFT - 6}" y="{HEAD + 8}" text-anchor="end">{top:,.3g} {escape(up)}</text>',
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">0</text>',
        f'<text x="{WIDTH - RIGHT}" y="{floor + 18}" text-anchor="end">{right:,.0f} {escape(across)}</text>',
    ]
    return "\n".join([_head(title, list(series), floor + 30), frame, *ends, *drawn, "</svg>", ""])


def _head(title: str, names: Sequence[str], height: float) -> str:
    keys = " · ".join(
        f'<tspan fill="{color}">{escape(name)}</tspan>' for name, color in zip(names, COLORS, strict=False)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif"'
        f' font-size="12"><rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
        f'<text x="10" y="18" font-weight="bold">{escape(title)}</text><text x="10" y="36">{keys}</text>'
    )


def _bar(place: int, name: str, values: Sequence[float], scale: float, unit: str) -> str:
    y, x = HEAD + place * BAR, float(LEFT)
    drawn = [f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>']
    for value, color in zip(values, COLORS, strict=False):
        drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="20" fill="{color}"/>')
        x += value * scale
    return "".join([*drawn, f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(values):,.0f} {escape(unit)}</text>'])
