"""The page of a run: goals, tables and charts. `python -m bench.report` writes it again from the last results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.contenders import CONTENDERS, INSTALLED, Holdfast
from bench.output import markdown_table, parse_arguments, template
from bench.results import BARE, Results, load
from bench.rounds import Figures
from dev import plot

OURS = Holdfast.name
ORDER = [kind.name for kind in CONTENDERS]

LATENCIES = {"p50": "p50, ms", "p99": "p99, ms"}
LOAD = LATENCIES | {"p999": "p99.9, ms", "generator": "load generator, cores"}
CPU = {"web_us": "receiver CPU / ack, us", "store_us": "store CPU / ack, us"}
PARTS = {"web_us": "receiver", "worker_us": "worker", "store_us": "store"}
WHOLE = {figure: f"{name}, us" for figure, name in (PARTS | {"total_us": "total"}).items()}
# Heading, measurement, and its columns: figure -> heading.
TABLES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("The receiver at its maximum rate", "acks", CPU | {"per_second": "acks/s"} | LOAD),
    ("The receiver at 70 % of its maximum rate", "steady", {"rate": "events/s"} | LOAD),
    ("From request to effect", "end_to_end", WHOLE | {"per_second": "events/s"}),
    (
        "One worker process on a full queue of jobs that do nothing",
        "drain",
        {"worker_us": "CPU / job, us", "per_second": "jobs/s"},
    ),
    ("From the 200 to the start of the handler, with an idle worker", "idle", LATENCIES),
)
# File, title, measurement, stacked figures with their names, unit.
CHARTS: tuple[tuple[str, str, str, dict[str, str], str], ...] = (
    ("acks", "CPU per acknowledgement", "acks", {"web_us": "receiver", "store_us": "store"}, "us"),
    ("latency", "p99 of an acknowledgement at 70 % of the maximum rate", "steady", {"p99": "p99"}, "ms"),
    ("whole", "CPU per event from request to effect", "end_to_end", PARTS, "us"),
)
# What, the measurement, the contender, the contender that it is divided by (if any), the figure, the goal.
GOALS = (
    ("receiver CPU per ack, relative to BullMQ", "acks", OURS, "BullMQ", "web_us", "at most", 0.8),
    ("receiver CPU per ack by hand, relative to Holdfast", "acks", "by hand", OURS, "web_us", "at least", 15),
    ("p99 of an ack at 70 % of the maximum rate, ms", "steady", OURS, "", "p99", "under", 50),
    ("worker CPU per job, relative to a bare Celery task", "drain", OURS, BARE, "worker_us", "at most", 1.25),
    ("from the 200 to the start of the handler, p50, ms", "idle", OURS, "", "p50", "under", 20),
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
    rows = []
    for what, measurement, name, base, figure, bound, limit in GOALS:
        rounds = found.rounds.get(measurement, {})
        if rounds.get(name) and (not base or rounds.get(base)):
            value = _median(rounds[name], figure) / (_median(rounds[base], figure) if base else 1)
            met = value >= limit if bound == "at least" else value <= limit
            shown = f"{value:.2f}" if value < 10 else f"{value:.1f}"
            rows.append([what, shown, f"{bound} {limit:g}", "met" if met else "**missed**"])
    return rows


def _in_order(found: Results, what: str) -> dict[str, list[Figures]]:
    kept = found.rounds.get(what, {})
    return {name: kept[name] for name in dict.fromkeys((*ORDER, *kept)) if kept.get(name)}


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


if __name__ == "__main__":
    write(load(INSTALLED / "results.json"), parse_arguments("bench.report").report)
