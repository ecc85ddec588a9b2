"""What is shown while the demo runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@dataclass(frozen=True, slots=True)
class Moment:
    """How far things are."""

    to_send: int
    sent: int
    to_acknowledge: int  # the rest must be refused
    acknowledged: int
    jobs: int
    done: int
    documents: int
    documents_done: int


class Board(Protocol):
    """Shows moments, and lines of what happens."""

    def show(self, moment: Moment) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


def make_board(console: Console) -> Board:
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """For people: four bars that grow, lines above them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<22}"), BarColumn(bar_width=40), MofNCompleteColumn(), console=console
        )
        names = ("deliveries sent", "acknowledged (on disk)", "jobs done", "documents finished")
        self._bars = [self._progress.add_task(name, total=None, visible=False) for name in names]
        self._progress.start()

    def show(self, moment: Moment) -> None:
        pairs = (
            (moment.sent, moment.to_send),
            (moment.acknowledged, moment.to_acknowledge),
            (moment.done, moment.jobs),
            (moment.documents_done, moment.documents),
        )
        for bar, (done, total) in zip(self._bars, pairs, strict=True):
            self._progress.update(bar, completed=done, total=max(total, 1), visible=True)

    def say(self, line: str) -> None:
        self._progress.console.print(f"  {line}", highlight=False)

    def close(self) -> None:
        self._progress.stop()


class Lines:
    """For logs: a line every few seconds."""

    EVERY_SECONDS = 4.0

    def __init__(self, console: Console) -> None:
        self._console, self._begin, self._last = console, time.monotonic(), 0.0

    def show(self, moment: Moment) -> None:
        if time.monotonic() - self._last < self.EVERY_SECONDS:
            return
        self._last = time.monotonic()
        self.say(
            f"sent {moment.sent} of {moment.to_send}, acknowledged {moment.acknowledged} of {moment.to_acknowledge},"
            f" jobs done {moment.done} of {moment.jobs}, documents {moment.documents_done} of {moment.documents}"
        )

    def say(self, line: str) -> None:
        self._console.print(f"{time.monotonic() - self._begin:5.1f} s  {line}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to tidy up."""
