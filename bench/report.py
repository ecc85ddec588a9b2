"""The page of a run: goals, tables and charts. `python -m bench.report` writes it again from the last results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import CONTENDERS, INSTALLED, Holdfast
from bench.output import markdown_table, parse_arguments, template
from bench.results import BARE, Results, load
from dev import plot

OURS = Holdfast.name
ORDER = [kind.name for kind in CONTENDERS]
Rounds = Mapping[str, Sequence[Any]]

# Heading, measurement of Results, and its columns: field -> heading.
LATENCIES = {"p50": "p50, ms", "p99": "p99, ms"}
TABLES: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "The receiver at its maximum rate",
        "acks",
        {"web_us": "receiver CPU / ack, us", "store_us": "store CPU / ack, us", "per_second": "acks/s"}
        | LATENCIES
        | {"p999": "p99.9, ms", "generator": "load generator, cores"},
    ),
    (
        "The receiver at 70 % of its maximum rate",
        "steady",
        {"rate": "events/s"} | LATENCIES | {"p999": "p99.9, ms", "generator": "load generator, cores"},
    ),
    (
        "From request to effect",
        "end_to_end",
        {
            "web_us": "receiver, us",
            "worker_us": "worker, us",
            "store_us": "store, us",
            "total_us": "total, us",
            "per_second": "events/s",
        },
    ),
    (
        "One worker process on a full queue of jobs that do nothing",
        "drain",
        {"worker_us": "CPU / job, us", "per_second": "jobs/s"},
    ),
    ("From the 200 to the start of the handler, with an idle worker", "idle", LATENCIES),
)
# File, title, measurement of Results, stacked fields with their names, unit.
CHARTS = (
    ("acks", "CPU per acknowledgement", "acks", {"web_us": "receiver", "store_us": "store"}, "us"),
    ("latency", "p99 of an acknowledgement at 70 % of the maximum rate", "steady", {"p99": "p99"}, "ms"),
    (
        "whole",
        "CPU per event from request to effect",
        "end_to_end",
        {"web_us": "receiver", "worker_us": "worker", "store_us": "store"},
        "us",
    ),
)


def write(found: Results, folder: Path) -> None:
    """Write benchmarks.md and its charts to `folder`."""
    shown = ""
    for name, title, what, fields, unit in CHARTS:
        rows = {one: [_median(rounds, field) for field in fields] for one, rounds in _in_order(found, what).items()}
        (folder / f"benchmarks-{name}.svg").write_text(plot.bars(title, rows, list(fields.values()), unit))
        shown += f"![{title}](benchmarks-{name}.svg)\n\n"
    size = "A quick run: few and short rounds, only for a first impression." if found.quick else "A full run."
    about = f"{size} {found.day}, {found.machine}; {found.versions}."
    (folder / "benchmarks.md").write_text(f"{template('head.md')}\n{about}\n\n{tables(found)}\n{shown}".rstrip() + "\n")


def tables(found: Results) -> str:
    """All tables, as Markdown."""
    parts = ["## The goals", markdown_table(("", "measured", "goal", ""), _goals(found))]
    for heading, what, columns in TABLES:
        rows = [[name, *(_cell(rounds, it) for it in columns)] for name, rounds in _in_order(found, what).items()]
        parts += [f"## {heading}", markdown_table(("", *columns.values()), rows)]
    left_out = "\n".join(f"- {name} is not compared: {reason}" for name, reason in found.left_out.items())
    return "\n\n".join([*parts, left_out])


def _goals(found: Results) -> list[list[str]]:
    """Goals whose figures are missing are left out."""
    acks, steady, drain, idle = found.acks, found.steady, found.drain, found.idle
    goals = (
        ("receiver CPU per ack, relative to BullMQ", _ratio(acks, OURS, "BullMQ", "web_us"), "at most", 1),
        ("receiver CPU per ack by hand, relative to Holdfast", _ratio(acks, "by hand", OURS, "web_us"), "at least", 15),
        ("p99 of an ack at 70 % of the maximum rate, ms", _of(steady, OURS, "p99"), "under", 50),
        ("worker CPU per job, relative to a bare Celery task", _ratio(drain, OURS, BARE, "worker_us"), "at most", 1.25),
        ("from the 200 to the start of the handler, p50, ms", _of(idle, OURS, "p50"), "under", 20),
    )
    return [_goal(*goal) for goal in goals if goal[1] is not None]


def _goal(what: str, value: float, bound: str, limit: float) -> list[str]:
    met = value >= limit if bound == "at least" else value <= limit
    shown = f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return [what, shown, f"{bound} {limit:g}", "met" if met else "**missed**"]


def _of(kept: Rounds, name: str, field: str) -> float | None:
    return _median(kept[name], field) if kept.get(name) else None


def _ratio(kept: Rounds, name: str, other: str, field: str) -> float | None:
    value, base = _of(kept, name, field), _of(kept, other, field)
    return value / base if value is not None and base else None


def _in_order(found: Results, what: str) -> Rounds:
    kept: Rounds = getattr(found, what)
    return {name: kept[name] for name in dict.fromkeys((*ORDER, *kept)) if kept.get(name)}


def _cell(rounds: Sequence[Any], field: str) -> str:
    """The median of the rounds with the lowest and the highest; of the load generator only the median."""
    values = [getattr(one, field) for one in rounds]
    if field == "generator":
        return f"{median(values):.2f}"
    return f"{_short(median(values))} ({_short(min(values))}–{_short(max(values))})"


def _median(rounds: Sequence[Any], field: str) -> float:
    return float(median(getattr(one, field) for one in rounds))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    write(load(INSTALLED / "results.json"), parse_arguments("bench.report").report)
