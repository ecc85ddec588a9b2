"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.api import Api
from cli.errors import USAGE, CommandError
from settings import SettingsError, load_client

EVENT_STATES = ("open", "succeeded", "dead", "discarded", "unhandled", "missed")
Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
limit = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Maximum number of rows."
)


def api_command(command: Command) -> Command:
    """Add --url, --key-file and --json to a command, and pass it an Api as its first argument."""

    @click.option("--url", help="URL of Holdfast. Default: HOLDFAST_URL, or the receiver on this machine.")
    @click.option("--key-file", type=click.Path(dir_okay=False), help="File that contains one of API_KEYS.")
    @as_json
    @functools.wraps(command)
    def with_api(*, url: str | None, key_file: str | None, **options: Any) -> Any:
        return command(_api(url, key_file), **options)

    return with_api


def _api(url: str | None, key_file: str | None) -> Api:
    """Raises CommandError if there is no key."""
    try:
        client = load_client()
        key = Path(key_file).read_text(encoding="utf-8").strip() if key_file else client.holdfast_api_key
    except SettingsError as error:
        raise CommandError(str(error), USAGE) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--key-file cannot be read ({type(error).__name__})", USAGE) from None
    if not (key.isascii() and key.isprintable() and key):
        raise CommandError("no valid API key: set HOLDFAST_API_KEY, or pass a file with --key-file", USAGE)
    return Api((url or client.holdfast_url).rstrip("/"), key)


def filters(*, of: str) -> Callable[[Command], Command]:
    """Add the options of a search through "events" or "dead letters", which are named as in the API."""
    dead = of == "dead letters"
    verb, fields = ("died", "id or reason") if dead else ("were received", "id")
    options = [
        click.option("--source", help="Only from this source."),
        click.option("--type", help="Only of this event type; invoice.* matches every type with that prefix."),
        click.option(
            "--since", help=f"Only if they {verb} at or after this time: 2026-11-24T13:00 (UTC), or ms since 1970."
        ),
        click.option("--until", help=f"Only if they {verb} at or before this time."),
        click.option("--q", help=f"Only with this text in the {fields}."),
        click.option("--customer", help="Only of this Stripe customer id, or this task id of the document service."),
    ]
    if not dead:
        options.append(click.option("--state", type=click.Choice(EVENT_STATES), help="Only in this state."))

    def add_options(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add_options


def given(filters: dict[str, Any]) -> dict[str, Any]:
    """Without the options that were not given."""
    return {name: value for name, value in filters.items() if value is not None}
