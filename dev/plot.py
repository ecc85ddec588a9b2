"""Tables of reports in Markdown, and SVG charts, drawn by pygal. The same data give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import pygal
from pygal.style import Style

STYLE = Style(
    background="white",  # opaque, so that a chart is also readable on a dark page
    plot_background="white",
    foreground="#444",
    foreground_strong="#111",
    colors=("#1f6feb", "#d2691e", "#8c8c8c", "#d0342c"),
    opacity="0.9",
    guide_stroke_color="#ddd",
    major_guide_stroke_color="#ddd",
    font_family="sans-serif",
    label_font_size=14,
    major_label_font_size=14,
    legend_font_size=15,
    title_font_size=18,
)
Point = tuple[float, float]


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (names, ["---"] * len(names), *rows))


def bars(title: str, rows: Mapping[str, Sequence[float]], parts: Sequence[str], unit: str) -> str:
    """One stacked bar per row, made of `parts`; its label shows the sum in `unit`."""
    chart = pygal.HorizontalStackedBar(**_options(title, 150 + 45 * len(rows), len(parts)))
    upwards = list(rows.items())[::-1]  # pygal draws the first row at the bottom
    chart.x_labels = [f"{name}: {_number(sum(values))} {unit}" for name, values in upwards]
    for number, part in enumerate(parts):
        chart.add(part, [values[number] for _, values in upwards])
    return _svg(chart)


def lines(
    title: str,
    series: Mapping[str, Sequence[Point]],
    axes: tuple[str, str],
    *,
    dots: bool = True,
    spans: tuple[str, Sequence[tuple[str, float, float]]] | None = None,
) -> str:
    """One line of (x, y) points per series, both axes from 0, with the titles `axes` (x, y).

    `spans` is a name and (label, begin, end) for each range of x to be marked along the top.
    """
    chart = pygal.XY(
        **_options(title, 420, len(series) + bool(spans)),
        x_value_formatter=_number,
        x_title=axes[0],
        y_title=axes[1],
        show_dots=dots,
        dots_size=3,
        include_x_axis=True,
        allow_interruptions=True,
        stroke_style={"width": 2},
    )
    for name, points in series.items():
        chart.add(name, points)
    if spans:
        top = 1.05 * max((y for points in series.values() for _, y in points), default=1)
        ends = [({"value": (begin, top), "label": label}, (end, top), None) for label, begin, end in spans[1]]
        marks = [point for pair in ends for point in pair]
        chart.add(spans[0], marks, show_dots=True, dots_size=2, stroke_style={"width": 7})
    return _svg(chart)


def _options(title: str, height: int, columns: int) -> dict[str, Any]:
    return {
        "title": title,
        "width": 1000,
        "height": height,
        "style": STYLE,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": columns,
        "value_formatter": _number,
        "js": (),
        "no_prefix": True,  # the prefix would be a random id
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _svg(chart: Any) -> str:
    root = chart.render_tree()
    for comment in [node for node in root if not isinstance(node.tag, str)]:
        root.remove(comment)  # contains today's date
    return ElementTree.tostring(root, encoding="unicode") + "\n"
