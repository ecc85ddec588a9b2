"""How a command fails: one line on stderr, and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

FAILURE, USAGE, UNAVAILABLE = 1, 2, 3


class CommandError(click.ClickException):
    """Ends the command with this message and exit code."""

    def __init__(self, message: str, code: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it as a class variable

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"holdfast: {self.message}", err=True)
