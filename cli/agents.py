"""`holdfast agents`: the agents that receive handoffs of finished documents."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command

HEAD = ("NAME", "URL", "STATE", "RATE", "DELIVERED", "PENDING", "DEAD", "FAILING SINCE")
COLUMNS = ("name", "url", "state", "rate_per_minute", "delivered", "pending", "dead", "failing_since")


@click.group()
def agents() -> None:
    """Manage agents. These are webhook receivers for finished documents."""


@agents.command("list")
@api_command
def list_agents(api: Api, *, as_json: bool) -> None:
    """List all agents with their state and the number of handoffs."""
    found = api.get("agents")
    if as_json:
        return output.as_json(found)
    return output.table(HEAD, ([agent[name] for name in COLUMNS] for agent in found["agents"]))


@agents.command()
@click.argument("name")
@click.argument("agent_url")
@click.option("--rate", type=click.IntRange(min=1), help="Maximum number of deliveries per minute.")
@api_command
def add(api: Api, *, name: str, agent_url: str, rate: int | None, as_json: bool) -> None:
    """Add an agent. Prints the secret that signs its webhooks, this once."""
    body = {"name": name, "url": agent_url} | ({"rate_per_minute": rate} if rate else {})
    added = api.post("agents", body=body)
    _show(added, as_json)
    if "secret" not in added:
        click.echo(f"{name} was added before. To get a new secret: holdfast agents rotate {name}", err=True)


@agents.command()
@click.argument("name", metavar="NAME|ID")
@api_command
def rotate(api: Api, *, name: str, as_json: bool) -> None:
    """Give an agent a new secret, and print it, this once. The former one is valid for 24 hours."""
    _show(api.post("agents", name, "rotate"), as_json)


@agents.command()
@click.argument("agent_url")
@api_command
def secret(api: Api, *, agent_url: str, as_json: bool) -> None:
    """Print the secret that signs the webhooks to a URL that was not added."""
    _show(api.post("agents", "secret", body={"url": agent_url}), as_json)


@agents.command()
@click.argument("name", metavar="NAME|ID")
@api_command
def disable(api: Api, *, name: str, as_json: bool) -> None:
    """Stop deliveries to an agent. Its handoffs become dead letters."""
    _switch(api, name, "disable", as_json)


@agents.command()
@click.argument("name", metavar="NAME|ID")
@api_command
def enable(api: Api, *, name: str, as_json: bool) -> None:
    """Resume deliveries to an agent."""
    _switch(api, name, "enable", as_json)


def _show(agent: dict[str, Any], as_json: bool) -> None:
    output.as_json(agent) if as_json else output.fields(agent)


def _switch(api: Api, name: str, action: str, as_json: bool) -> None:
    answer = api.post("agents", name, action)
    if as_json:
        output.as_json(answer)
    else:
        click.echo(f"{name} is {action}d")
