"""`holdfast stats`, `sources`, `audit`, `reconcile`: the counts, who sends, who did what, what never arrived."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command, limit

OWED = ("ready", "leased")


@click.command()
@api_command
def stats(api: Api, *, as_json: bool) -> None:
    """How many events were accepted, repeated, refused, and how many jobs stand where."""
    found = api.get("stats")
    if as_json:
        return output.as_json(found)
    return output.table(("", ""), found.items())


@click.command()
@api_command
def sources(api: Api, *, as_json: bool) -> None:
    """Who sends, which secret proves it, and what was refused."""
    found = api.get("sources")
    if as_json:
        return output.as_json(found)
    return output.table(("SOURCE", "SECRET", "VERIFIED", "LAST", "REFUSED"), map(_sender, _secrets(found["sources"])))


@click.command()
@limit
@api_command
def audit(api: Api, *, as_json: bool, limit: int) -> None:
    """Who had what run again or put away, and why."""
    found = api.get("audit", limit=min(limit, 200))
    if as_json:
        return output.as_json(found)
    rows = (
        (output.at(deed["at"]), deed["by"], deed["action"], deed["job"], deed.get("why")) for deed in found["audit"]
    )
    return output.table(("AT", "BY", "ACTION", "JOB", "WHY"), rows)


@click.command()
@click.option("--days", type=click.IntRange(1, 30), help="All events of so many days, delivered or not.")
@click.option("--last", is_flag=True, help="Only tell how the last look went.")
@api_command
def reconcile(api: Api, *, days: int | None, last: bool, as_json: bool) -> None:
    """Ask Stripe for what it could not deliver, take that in, and tell how it went."""
    if last and days:
        raise click.UsageError("--last looks for nothing, so it takes no --days")
    if not last:
        _look(api, days)
    found = api.get("reconcile")
    return output.as_json(found) if as_json else output.fields(found)


def _look(api: Api, days: int | None) -> None:
    """Whoever stops this stops only the telling."""
    before = api.get("stats")["missed"]
    event = api.post("reconcile", body={"days": days} if days else {})["id"]
    now: dict[str, Any] = {}

    def look() -> tuple[int, int, str]:
        jobs = now["jobs"] = api.get("events", "holdfast", event)["jobs"]
        done = sum(job["state"] not in OWED for job in jobs)
        troubles = [f"{job['reason']}; it is tried again" for job in jobs if job["state"] in OWED and job["reason"]]
        return done, len(jobs) + 1, troubles[0] if troubles else f"pages done: {done}"

    click.echo(f"asked for: {event}; a worker does it now", err=True)
    output.follow(look, lambda: all(job["state"] not in OWED for job in now["jobs"]))
    click.echo(f"events that never arrived and were taken in now: {api.get('stats')['missed'] - before}", err=True)


def _secrets(sources: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(source, secret) for source in sources for secret in source["secrets"]]


def _sender(row: tuple[dict[str, Any], dict[str, Any]]) -> tuple[object, ...]:
    source, secret = row
    refused = ", ".join(f"{reason} {count}" for reason, count in source["rejected"].items() if count)
    return source["name"], secret["secret"], secret["verified"], output.at(secret["last"]), refused
