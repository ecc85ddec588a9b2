"""The page of a run: goals, tables and charts."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.contenders import BareCelery, BullMQ, Holdfast, Naive
from bench.load import Figures
from bench.output import machine, write_page
from dev import plot
from dev.stack.servers import valkey_binary

Rounds = Mapping[str, Mapping[str, Sequence[Figures]]]  # by measurement and contender

OURS, BARE = Holdfast.name, BareCelery.name

LATENCIES = {"p50": "p50, ms", "p99": "p99, ms"}
LOAD = LATENCIES | {"p999": "p99.9, ms", "generator": "load generator, cores"}
CPU = {"web_us": "receiver CPU / ack, us", "store_us": "store CPU / ack, us"}
PARTS = {"web_us": "receiver", "worker_us": "worker", "store_us": "store"}
WHOLE = {figure: f"{name}, us" for figure, name in (PARTS | {"total_us": "total"}).items()}
# By measurement: figure -> heading.
COLUMNS: dict[str, dict[str, str]] = {
    "acks": CPU | {"per_second": "acks/s"} | LOAD,
    "steady": {"rate": "events/s"} | LOAD,
    "end_to_end": WHOLE | {"per_second": "events/s"},
    "drain": {"worker_us": "CPU / job, us", "per_second": "jobs/s"},
    "idle": LATENCIES,
}
# File, title, measurement, stacked figures with their names, unit.
CHARTS: tuple[tuple[str, str, str, dict[str, str], str], ...] = (
    ("acks", "CPU per acknowledgement", "acks", {"web_us": "receiver", "store_us": "store"}, "us"),
    ("latency", "p99 of an acknowledgement at 70 % of the maximum rate", "steady", {"p99": "p99"}, "ms"),
    ("whole", "CPU per event from request to effect", "end_to_end", PARTS, "us"),
)
# What, the measurement, the contender, the contender that it is divided by (if any), the figure, the goal.
GOALS = (
    ("receiver CPU per ack, relative to BullMQ", "acks", OURS, BullMQ.name, "web_us", "at most", 0.8),
    ("receiver CPU per ack by hand, relative to Holdfast", "acks", Naive.name, OURS, "web_us", "at least", 15),
    ("p99 of an ack at 70 % of the maximum rate, ms", "steady", OURS, "", "p99", "under", 50),
    ("worker CPU per job, relative to a bare Celery task", "drain", OURS, BARE, "worker_us", "at most", 1.25),
    ("from the 200 to the start of the handler, p50, ms", "idle", OURS, "", "p50", "under", 20),
)


def about(quick: bool) -> str:
    """Description of a run that is about to start, and of what it runs on."""
    size = "A quick run: few and short rounds, only for a first impression." if quick else "A full run."
    versions = f"Python {platform.python_version()}, Valkey {_version(valkey_binary())}, Node {_version('node')}"
    return f"{size} {datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions}."


def _version(program: str) -> str:
    found = re.search(r"\bv=?(\d[\w.]*)", subprocess.getoutput(f"{program} --version"))
    return found[1] if found else "?"


def write(found: Rounds, left_out: Mapping[str, str], about: str, folder: Path) -> None:
    """Write benchmarks.md and its charts to `folder`. `left_out`: why a contender is not compared, by its name."""
    for name, title, what, fields, unit in CHARTS:
        rows = {one: [_median(rounds, it) for it in fields] for one, rounds in found.get(what, {}).items()}
        (folder / f"benchmarks-{name}.svg").write_text(plot.bars(title, rows, list(fields.values()), unit))
    write_page(
        folder / "benchmarks.md",
        "benchmarks.md",
        about=about,
        goals=plot.markdown_table(("", "measured", "goal", ""), _goals(found)),
        left_out=left_out_lines(left_out),
        **{what: table(columns, found.get(what, {})) for what, columns in COLUMNS.items()},
    )


def left_out_lines(left_out: Mapping[str, str]) -> str:
    return "".join(f"\n- {name} is not compared: {reason}\n" for name, reason in left_out.items())


def table(columns: Mapping[str, str], found: Mapping[str, Sequence[Figures]]) -> str:
    """A row for each contender; `columns` are headings by figure."""
    rows = [[name, *(_cell(rounds, it) for it in columns)] for name, rounds in found.items()]
    return plot.markdown_table(("", *columns.values()), rows)


def _goals(found: Rounds) -> list[list[str]]:
    """Goals whose figures are missing are left out."""
    rows = []
    for what, measurement, name, base, figure, bound, limit in GOALS:
        rounds = found.get(measurement, {})
        if rounds.get(name) and (not base or rounds.get(base)):
            value = _median(rounds[name], figure) / (_median(rounds[base], figure) if base else 1)
            met = value >= limit if bound == "at least" else value <= limit
            shown = f"{value:.2f}" if value < 10 else f"{value:.1f}"
            rows.append([what, shown, f"{bound} {limit:g}", "met" if met else "**missed**"])
    return rows


def _cell(rounds: Sequence[Figures], figure: str) -> str:
    """The median of the rounds with the lowest and the highest; of the load generator only the median."""
    values = [one[figure] for one in rounds]
    if figure == "generator":
        return f"{median(values):.2f}"
    return f"{_short(median(values))} ({_short(min(values))}–{_short(max(values))})"


def _median(rounds: Sequence[Figures], figure: str) -> float:
    return median(one[figure] for one in rounds)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
