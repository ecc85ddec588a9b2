"""`holdfast agents`: other agents that finished documents are handed on to."""

from __future__ import annotations

import click

from cli import output
from cli.api import Api
from cli.options import api_command

HEAD = ("NAME", "URL", "STATE", "RATE", "DELIVERED", "OWED", "DEAD", "FAILING SINCE")
COLUMNS = ("name", "url", "state", "rate_per_minute", "delivered", "owed", "dead", "failing_since")


@click.group()
def agents() -> None:
    """Agents that finished documents are handed on to."""


@agents.command("list")
@api_command
def list_agents(api: Api, *, as_json: bool) -> None:
    """All, and how their deliveries fare."""
    found = api.get("agents")
    if as_json:
        return output.as_json(found)
    return output.table(HEAD, ([agent[name] for name in COLUMNS] for agent in found["agents"]))


@agents.command()
@click.argument("name")
@click.argument("address")
@click.option("--rate", type=click.IntRange(min=1), help="Deliveries a minute, at most.")
@api_command
def add(api: Api, *, name: str, address: str, rate: int | None, as_json: bool) -> None:
    """Hand documents on to this ADDRESS. Prints the secret that signs them, this once."""
    wanted = {"name": name, "url": address} | ({"rate_per_minute": rate} if rate else {})
    made = api.post("agents", body=wanted)
    return output.as_json(made) if as_json else output.fields(made)


@agents.command()
@click.argument("name", metavar="NAME|ID")
@api_command
def disable(api: Api, *, name: str, as_json: bool) -> None:
    """Deliver nothing to it any more."""
    _told(api.post("agents", name, "disable"), f"{name} is disabled", as_json)


@agents.command()
@click.argument("name", metavar="NAME|ID")
@api_command
def enable(api: Api, *, name: str, as_json: bool) -> None:
    """Deliver to it again."""
    _told(api.post("agents", name, "enable"), f"{name} is enabled", as_json)


def _told(answer: dict[str, object], words: str, as_json: bool) -> None:
    if as_json:
        output.as_json(answer)
    else:
        click.echo(words)
