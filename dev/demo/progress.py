"""The progress of the demo: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich import progress
from rich.console import Console

Status = Mapping[str, tuple[int, int]]  # by name: how many are done, of how many
LINE_EVERY_SECONDS = 4.0


class Progress:
    """Shows how far the demo is, and lines about what happens."""

    def __init__(self, console: Console) -> None:
        self._console, self._started, self._last = console, time.monotonic(), 0.0
        columns = (progress.TextColumn("{task.description:<22}"), progress.BarColumn(), progress.MofNCompleteColumn())
        self._bars = progress.Progress(*columns, console=console) if console.is_terminal else None
        self._tasks: dict[str, progress.TaskID] = {}
        if self._bars:
            self._bars.start()

    def show(self, status: Status) -> None:
        if self._bars:
            for name, (done, total) in status.items():
                if name not in self._tasks:
                    self._tasks[name] = self._bars.add_task(name)
                self._bars.update(self._tasks[name], completed=done, total=max(total, 1))
        elif time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            self.say(", ".join(f"{name} {done} of {total}" for name, (done, total) in status.items()))

    def say(self, line: str) -> None:
        self._console.print(f"{time.monotonic() - self._started:5.1f} s  {line}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bars:
            self._bars.stop()
