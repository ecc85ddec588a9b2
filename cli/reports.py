"""`holdfast stats`, `sources` and `audit`."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command, limit


@click.command()
@api_command
def stats(api: Api, *, as_json: bool) -> None:
    """Show the counters. They count deliveries (accepted, duplicate, rejected) and jobs by state."""
    found = api.get("stats")
    if as_json:
        return output.as_json(found)
    return output.table(("NAME", "COUNT"), found.items())


@click.command()
@api_command
def sources(api: Api, *, as_json: bool) -> None:
    """List the configured sources. Shows the use of each secret and the rejected deliveries."""
    found = api.get("sources")
    if as_json:
        return output.as_json(found)
    rows = (_source_row(source, secret) for source in found["sources"] for secret in source["secrets"])
    return output.table(("SOURCE", "SECRET", "VERIFIED", "LAST USED", "REJECTED"), rows)


@click.command()
@limit
@api_command
def audit(api: Api, *, as_json: bool, limit: int) -> None:
    """List replays and discards. Shows the API key that was used and the reason."""
    found = api.get("audit", limit=min(limit, 200))
    if as_json:
        return output.as_json(found)
    rows = (
        (output.timestamp(one["at"]), one["by"], one["action"], one["job"], one.get("reason")) for one in found["audit"]
    )
    return output.table(("TIME", "BY", "ACTION", "JOB", "REASON"), rows)


def _source_row(source: dict[str, Any], secret: dict[str, Any]) -> tuple[object, ...]:
    rejected = ", ".join(f"{reason} {count}" for reason, count in source["rejected"].items() if count)
    return source["name"], secret["secret"], secret["verified"], output.timestamp(secret["last"]), rejected


def _audit_row(entry: dict[str, Any]) -> tuple[object, ...]:
    return output.timestamp(entry["at"]), entry["by"], entry["action"], entry["job"], entry.get("reason")
