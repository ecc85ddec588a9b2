"""`holdfast import stripe`: load the subscriptions that exist at Stripe."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from cli import output
from cli.api import Api
from cli.options import api_command
from cli.reconcile import Job, unfinished


class Import(NamedTuple):
    """The jobs of the request, and the status of the run."""

    jobs: list[Job]
    status: dict[str, Any]


@click.group("import")
def import_() -> None:
    """Load what existed before Holdfast."""


@import_.command()
@click.option("--dry-run", is_flag=True, help="Only count what would be imported.")
@click.option("--last", is_flag=True, help="Only show the result of the last run.")
@api_command
def stripe(api: Api, *, dry_run: bool, last: bool, as_json: bool) -> None:
    """Load all subscriptions of the Stripe account with their customers, or continue an unfinished import.

    Ctrl-C does not stop the import.
    """
    if last and dry_run:
        raise click.UsageError("--last starts no run, so it cannot be combined with --dry-run")
    if not last:
        event = api.post("imports/stripe", body={"dry_run": dry_run})["id"]
        click.echo(f"{event} requested, waiting for a worker", err=True)
        output.follow(lambda: _load(api, event), _progress, lambda found: not unfinished(found.jobs))
    status = api.get("imports/stripe")
    return output.as_json(status) if as_json else output.fields(status)


def _load(api: Api, event: str) -> Import:
    return Import(api.get("events", "holdfast", event)["jobs"], api.get("imports/stripe"))


def _progress(found: Import) -> output.Progress:
    """There is a job per page; the number of pages is not known in advance."""
    waiting = unfinished(found.jobs)
    errors = [f"{job['reason']}; it will be retried" for job in waiting if job["reason"]]
    text = f"subscriptions listed: {found.status['listed']}, to import: {found.status['differing']}"
    return output.Progress(len(found.jobs) - len(waiting), len(found.jobs) + 1, errors[0] if errors else text)
