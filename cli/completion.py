"""`holdfast completion`: shell completion of commands, options and values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. Use it with: eval "$(holdfast completion bash)"."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101  click supports these three shells
    click.echo(completion_class(ctx.find_root().command, {}, "holdfast", "_HOLDFAST_COMPLETE").source())
