"""What the commands have in common: whom they ask, how they answer, what a search takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.api import Api
from cli.errors import USAGE, CommandError
from settings import SettingsError, load_client

STATES = ("open", "succeeded", "dead", "discarded", "unhandled")
Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")
limit = click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rows at most.")


def api_command(command: Command) -> Command:
    """A command that asks the API; it gets the Api first."""

    @click.option("--url", help="Where Holdfast is. Default: HOLDFAST_URL, or this machine's receiver.")
    @click.option("--key-file", type=click.Path(dir_okay=False), help="A file that holds one of API_KEYS.")
    @as_json
    @functools.wraps(command)
    def asking(*, url: str | None, key_file: str | None, **given: Any) -> Any:
        return command(_api(url, key_file), **given)

    return asking


def _api(url: str | None, key_file: str | None) -> Api:
    """Raises Failed where no key is to be had."""
    try:
        client = load_client()
        key = Path(key_file).read_text(encoding="utf-8").strip() if key_file else client.holdfast_api_key
    except SettingsError as error:
        raise CommandError(str(error), USAGE) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--key-file cannot be read ({type(error).__name__})", USAGE) from None
    if not (key.isascii() and key.isprintable() and key):
        raise CommandError("no usable key: set HOLDFAST_API_KEY, or name a file that holds one with --key-file", USAGE)
    return Api((url or client.holdfast_url).rstrip("/"), key)


def filters(*, of: str) -> Callable[[Command], Command]:
    """What a search through events or dead letters takes; the function gets it as it is named in the API."""
    dead = of == "dead letters"
    when, where = ("died", "id or reason") if dead else ("arrived", "id")
    takes = [
        click.option("--source", help="From this sender."),
        click.option("--type", help="Of this type; invoice.* is all that begin so."),
        click.option("--since", help=f"That {when} then or later: 2026-11-24T13:00, in UTC, or ms since 1970."),
        click.option("--until", help=f"That {when} then or earlier."),
        click.option("--q", help=f"With this in their {where}."),
        click.option("--customer", help="Of this customer's Stripe id, or of this task's of the document service."),
    ]
    if not dead:
        takes.append(click.option("--state", type=click.Choice(STATES), help="That stand so."))

    def taking(command: Command) -> Command:
        for option in reversed(takes):
            command = option(command)
        return command

    return taking


def given(filters: dict[str, Any]) -> dict[str, Any]:
    """Those that were typed."""
    return {name: value for name, value in filters.items() if value is not None}
