"""Output of the commands: JSON, tables, times, and progress while something runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import click

POLL_SECONDS = 0.5
T = TypeVar("T")


class Progress(NamedTuple):
    """`done` of `total` (0 if unknown), and the same as text."""

    done: int
    total: int
    text: str


def as_json(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def as_json_line(answer: Any) -> None:
    click.echo(json.dumps(answer, ensure_ascii=False))


def line(text: str) -> None:
    click.echo(_cell(text))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns, or "none" if there are no rows."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        click.echo("none")
        return
    lines.insert(0, list(head))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def fields(answer: dict[str, Any]) -> None:
    """Print one line per field, without empty ones."""
    width = max(map(len, answer))
    for name, value in answer.items():
        if value not in (None, "", [], {}):
            click.echo(f"{name.ljust(width)}  {_cell(value)}")


def timestamp(ms: int | None) -> str:
    """Milliseconds since 1970 as a UTC time, in the format that `--since` accepts; "" for None."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") if ms else ""


def follow(load: Callable[[], T], progress: Callable[[T], Progress], is_finished: Callable[[T], bool]) -> T:
    """Poll with `load` and show the progress on stderr until `is_finished`. Returns what was loaded last.

    Stopping this with Ctrl-C does not stop what it watches.
    """
    with _progress_bar() if sys.stderr.isatty() else _progress_lines() as show:
        while True:
            state = load()
            show(progress(state))
            if is_finished(state):
                return state
            time.sleep(POLL_SECONDS)


@contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    with click.progressbar(length=1000, show_eta=False, bar_template="%(bar)s %(label)s", file=sys.stderr) as bar:

        def show(progress: Progress) -> None:
            bar.label = progress.text
            bar.pos = round(1000 * progress.done / progress.total) if progress.total else 0
            bar.render_progress()

        yield show


@contextmanager
def _progress_lines() -> Iterator[Callable[[Progress], None]]:
    """A line whenever the text changes."""
    last = ""

    def show(progress: Progress) -> None:
        nonlocal last
        if progress.text != last:
            click.echo(progress.text, err=True)
        last = progress.text

    yield show


def _cell(value: object) -> str:
    """One line of text. Control characters are replaced, because values from senders must not control the terminal."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text)
