"""The page of bench/growth.py, and its picture."""

from __future__ import annotations

from pathlib import Path

from bench import plot
from bench.growth_model import Growth, Kind, Level

WORDS = Path(__file__).parent / "growth.md"
GOAL_BYTES = 64  # of an id that is remembered
COLUMNS = ("events", "ack p50", "ack p99", "sweep p50", "sweep p99", "overview", "events", "a search in vain", "dead")


def write(found: Growth, about: str, folder: Path) -> str:
    """docs/growth.md and growth.svg in `folder`; returns the page."""
    kinds = {"owed": found.owed, "stored": found.stored, "remembered": found.remembered}
    series = {f"ack p99, {name}": _line(kind, "ack_p99") for name, kind in kinds.items()}
    series["sweep p99, owed"] = _line(found.owed, "sweep_p99")
    (folder / "growth.svg").write_text(plot.lines("Time as the record grows", series, "events", "ms"))
    most = found.owed.levels[-1].events
    page = WORDS.read_text().format(
        about=about,
        payload=f"{found.payload:,}",
        compressed=f"{found.compressed:,}",
        goal=GOAL_BYTES,
        verdict="met" if found.remembered.bytes_each <= GOAL_BYTES else "**missed**",
        most=f"{most:,}",
        drained=f"{found.drained:,.0f}",
        minutes=f"{most / found.drained / 60:.0f}",
        **{name: _table(kind) for name, kind in kinds.items()},
        **{f"{name}_bytes": f"{kind.bytes_each:,.0f}" for name, kind in kinds.items()},
        **{f"{name}_restart": f"{kind.restart_seconds:.1f}" for name, kind in kinds.items()},
    )
    (folder / "growth.md").write_text(page)
    return page


def _line(kind: Kind, what: str) -> list[tuple[float, float]]:
    return [(level.events, getattr(level, what)) for level in kind.levels]


def _table(kind: Kind) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_row, kind.levels)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(level: Level) -> tuple[str, ...]:
    times = (level.ack_p50, level.ack_p99, level.sweep_p50, level.sweep_p99, *level.pages)
    return (f"{level.events:,}", *(f"{ms:.1f}" for ms in times))
