"""How answers are shown to people: tables, times, and how far something is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

LOOK_SECONDS = 0.5  # between two looks at how far something is


def as_json(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def as_line(answer: Any) -> None:
    """One of many, where they come one by one."""
    click.echo(json.dumps(answer, ensure_ascii=False))


def line(text: str) -> None:
    click.echo(_cell(text))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what is in them; of no rows only that."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        click.echo("none")
        return
    lines.insert(0, list(head))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def fields(answer: dict[str, Any]) -> None:
    """Name and value of each that has one."""
    width = max(map(len, answer))
    for name, value in answer.items():
        if value not in (None, "", [], {}):
            click.echo(f"{name.ljust(width)}  {_cell(value)}")


def at(ms: int | None) -> str:
    """A time of the record's, as `--since` takes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") if ms else ""


def follow(look: Callable[[], tuple[int, int, str]], over: Callable[[], bool]) -> None:
    """A bar that grows with what `look` answers, (done, of how many, in words), until it is over.

    Where nobody watches, a line whenever the words change.
    """
    if not sys.stderr.isatty():
        return _follow_in_lines(look, over)
    with click.progressbar(length=1000, show_eta=False, bar_template="%(bar)s %(label)s", file=sys.stderr) as bar:
        while True:
            done, total, bar.label = look()
            bar.pos = round(1000 * done / total) if total else 0
            bar.render_progress()
            if over():
                return None
            time.sleep(LOOK_SECONDS)


def _follow_in_lines(look: Callable[[], tuple[int, int, str]], over: Callable[[], bool]) -> None:
    last = ""
    while True:
        words = look()[2]
        if words != last:
            click.echo(words, err=True)
        last = words
        if over():
            return
        time.sleep(LOOK_SECONDS)


def _cell(value: object) -> str:
    """A control character of somebody else's must not steer the terminal."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text)
