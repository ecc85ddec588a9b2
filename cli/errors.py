"""How a command ends: 0 done, 1 refused or in trouble, 2 typed or set wrongly, 3 nobody answers. One line each."""

from __future__ import annotations

from typing import IO, Any

import click

FAILURE, USAGE, UNAVAILABLE = 1, 2, 3


class CommandError(click.ClickException):
    """It cannot be done, and why; `exit_code` is how the process ends."""

    def __init__(self, words: str, code: int = FAILURE) -> None:
        super().__init__(words)
        self.exit_code = code  # type: ignore[misc]  # click calls it a class variable

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"holdfast: {self.message}", err=True)
