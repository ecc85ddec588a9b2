"""The page of a run: tables, goals beside the figures, pictures. `python -m bench.report` writes it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import plot
from bench.contenders import CONTENDERS, Holdfast
from bench.processes import ROOT
from bench.results import BARE, Results, load

OURS = Holdfast.name
HEAD = Path(__file__).parent / "head.md"
ORDER = [kind.name for kind in CONTENDERS]


def write(found: Results, folder: Path) -> None:
    """docs/benchmarks.md and its pictures."""
    acks, whole = _in_order(found.acks), _in_order(found.end_to_end)
    pictures = {
        "benchmarks-acks.svg": plot.bars(
            "CPU for one acknowledgement", _parts(acks, "web_us", "store_us"), ("receiver", "store"), "us"
        ),
        "benchmarks-latency.svg": plot.bars(
            "p99 of an acknowledgement at 70 % of the receiver's own most",
            _parts(_in_order(found.steady), "p99"),
            ("p99",),
            "ms",
        ),
        "benchmarks-whole.svg": plot.bars(
            "CPU for one event from request to effect",
            _parts(whole, "web_us", "worker_us", "store_us"),
            ("receiver", "worker", "store"),
            "us",
        ),
    }
    for name, picture in pictures.items():
        (folder / name).write_text(picture)
    shown = "\n".join(f"![{name.partition('.')[0]}]({name})\n" for name in pictures)
    (folder / "benchmarks.md").write_text(f"{HEAD.read_text()}\n{_about(found)}\n\n{table(found)}\n{shown}")


def table(found: Results) -> str:
    """All tables, as Markdown."""
    acks, steady, whole = (_in_order(kept) for kept in (found.acks, found.steady, found.end_to_end))
    left_out = "\n".join(f"- {name} is not compared: {why}" for name, why in found.left_out.items())
    return "\n\n".join(
        [
            "## The goals",
            _rows(("", "measured", "goal", ""), _goals(found)),
            "## The receiver at its most",
            _rows(
                (
                    "",
                    "receiver CPU / ack, us",
                    "store CPU / ack, us",
                    "acks/s",
                    "p50, ms",
                    "p99, ms",
                    "p99.9, ms",
                    "load generator, cores",
                ),
                [
                    [
                        name,
                        *(_spread(rounds, what) for what in ("web_us", "store_us", "per_second", "p50", "p99", "p999")),
                        f"{_middle(rounds, 'generator'):.2f}",
                    ]
                    for name, rounds in acks.items()
                ],
            ),
            "## The receiver at 70 % of its most",
            _rows(
                ("", "events/s", "p50, ms", "p99, ms", "p99.9, ms", "sender, cores"),
                [
                    [
                        name,
                        *(_spread(rounds, what) for what in ("rate", "p50", "p99", "p999")),
                        f"{_middle(rounds, 'generator'):.2f}",
                    ]
                    for name, rounds in steady.items()
                ],
            ),
            "## From request to effect",
            _rows(
                ("", "receiver, us", "worker, us", "store, us", "together, us", "events/s"),
                [
                    [
                        name,
                        *(_spread(rounds, what) for what in ("web_us", "worker_us", "store_us")),
                        f"{_together(rounds):,.0f}",
                        _spread(rounds, "per_second"),
                    ]
                    for name, rounds in whole.items()
                ],
            ),
            "## One worker process at a full queue of jobs that do nothing",
            _rows(
                ("", "CPU / job, us", "jobs/s"),
                [
                    [name, _spread(rounds, "worker_us"), _spread(rounds, "per_second")]
                    for name, rounds in found.drain.items()
                ],
            ),
            "## From the 200 to the start of the handler, when nothing else is to do",
            _rows(
                ("", "p50, ms", "p99, ms"),
                [[name, _spread(rounds, "p50"), _spread(rounds, "p99")] for name, rounds in found.idle.items()],
            ),
            left_out,
        ]
    )


def _goals(found: Results) -> list[list[str]]:
    """Each with what was measured, in this run; a goal whose figures are missing is not judged."""
    rows = []
    web = {name: _middle(rounds, "web_us") for name, rounds in found.acks.items()}
    if OURS in web and "BullMQ" in web:
        rows.append(_goal("receiver CPU per ack, as a part of BullMQ's", web[OURS] / web["BullMQ"], 1.0, "at most 1"))
    if OURS in web and "by hand" in web:
        rows.append(
            _goal(
                "receiver CPU per ack by hand, in times of ours",
                web["by hand"] / web[OURS],
                15.0,
                "at least 15",
                more=True,
            )
        )
    if OURS in found.steady:
        rows.append(_goal("p99 of an ack at 70 %, ms", _middle(found.steady[OURS], "p99"), 50.0, "under 50"))
    if found.drain:
        ours, bare = (_middle(found.drain[name], "worker_us") for name in (OURS, BARE))
        rows.append(_goal("worker CPU per job, in times of a bare Celery task", ours / bare, 1.25, "at most 1.25"))
    if OURS in found.idle:
        rows.append(
            _goal(
                "from the 200 to the start of the handler, p50, ms", _middle(found.idle[OURS], "p50"), 20.0, "under 20"
            )
        )
    return rows


def _goal(what: str, value: float, limit: float, words: str, *, more: bool = False) -> list[str]:
    kept = value >= limit if more else value <= limit
    return [what, f"{value:.2f}" if value < 10 else f"{value:.1f}", words, "met" if kept else "**missed**"]


def _about(found: Results) -> str:
    size = "A quick run: few and short rounds, good for a first look only." if found.quick else "A full run."
    return f"{size} {found.day}, {found.machine}; {found.versions}."


def _in_order(kept: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: kept[name] for name in ORDER if kept.get(name)}


def _parts(kept: dict[str, list[Any]], *whats: str) -> dict[str, list[float]]:
    return {name: [_middle(rounds, what) for what in whats] for name, rounds in kept.items()}


def _middle(rounds: Sequence[Any], what: str) -> float:
    return float(median(getattr(one, what) for one in rounds))


def _together(rounds: Sequence[Any]) -> float:
    return sum(_middle(rounds, what) for what in ("web_us", "worker_us", "store_us"))


def _spread(rounds: Sequence[Any], what: str) -> str:
    """The median of the rounds, and the least and the most of them."""
    values = [getattr(one, what) for one in rounds]
    return f"{_short(median(values))} ({_short(min(values))}–{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ruled)


if __name__ == "__main__":
    write(load(ROOT / "var" / "bench" / "results.json"), ROOT / "docs")
