"""`holdfast reconcile`: fetch events from Stripe that were not delivered."""

from __future__ import annotations

from typing import Any

import click

from cli import output
from cli.api import Api
from cli.options import api_command

UNFINISHED = ("pending", "scheduled", "running")
Job = dict[str, Any]


@click.command()
@click.option("--days", type=click.IntRange(1, 30), help="Fetch all events of the last DAYS days, delivered or not.")
@click.option("--last", is_flag=True, help="Only show the result of the last run.")
@api_command
def reconcile(api: Api, *, days: int | None, last: bool, as_json: bool) -> None:
    """Fetch events that Stripe did not deliver. Shows the progress and the result."""
    if last and days:
        raise click.UsageError("--last starts no run, so it cannot be combined with --days")
    if not last:
        _run(api, days)
    found = api.get("reconcile")
    return output.as_json(found) if as_json else output.fields(found)


def _run(api: Api, days: int | None) -> None:
    before = api.get("stats")["missed"]
    event = api.post("reconcile", body={"days": days} if days else {})["id"]
    click.echo(f"{event} requested, waiting for a worker", err=True)
    output.follow(lambda: api.get("events", "holdfast", event)["jobs"], _progress, lambda jobs: not unfinished(jobs))
    click.echo(f"missed events fetched: {api.get('stats')['missed'] - before}", err=True)


def _progress(jobs: list[Job]) -> output.Progress:
    """There is a job per page; the number of pages is not known in advance."""
    waiting = unfinished(jobs)
    done = len(jobs) - len(waiting)
    errors = [f"{job['reason']}; it will be retried" for job in waiting if job["reason"]]
    return output.Progress(done, len(jobs) + 1, errors[0] if errors else f"pages fetched: {done}")


def unfinished(jobs: list[Job]) -> list[Job]:
    """Those of an event's jobs that have not ended."""
    return [job for job in jobs if job["state"] in UNFINISHED]
