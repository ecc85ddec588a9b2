"""`holdfast completion`: what a shell takes to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion for a shell: eval "$(holdfast completion bash)"."""
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  click has these three
    click.echo(made(ctx.find_root().command, {}, "holdfast", "_HOLDFAST_COMPLETE").source())
