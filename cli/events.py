"""`holdfast events`: list, show, replay and follow events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import UNAVAILABLE, CommandError
from cli.options import api_command, filters, given, limit

HEAD = ("RECEIVED", "SOURCE", "ID", "TYPE", "STATE")
POLL_SECONDS = 2.0
MAX_NEW_EVENTS = 10_000  # per poll
Event = dict[str, Any]
Job = dict[str, Any]


@click.group()
def events() -> None:
    """List, show, replay and follow events."""


@events.command("list")
@filters(of="events")
@limit
@api_command
def list_events(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """List the events that match, newest first."""
    found = list(api.rows("events", limit, **filters))
    if as_json:
        return output.as_json({"events": found})
    return output.table(HEAD, map(_row, found))


@events.command("show")
@click.argument("source")
@click.argument("event_id", metavar="ID")
@api_command
def show_event(api: Api, *, source: str, event_id: str, as_json: bool) -> None:
    """Show an event with its jobs, their attempts, and its payload without personal data."""
    event = api.get("events", source, event_id)
    if as_json:
        return output.as_json(event)
    facts = {name: event[name] for name in ("source", "id", "type", "state", "deliveries")}
    output.fields(facts | {"received": output.timestamp(event["received"])})
    for depth, job in _tree(event["jobs"]):
        _print_job(job, "  " * depth)
    for line in json.dumps(event["payload"], indent=2, ensure_ascii=False).splitlines():
        output.line(line)
    return None


@events.command()
@click.argument("source")
@click.argument("event_id", metavar="ID")
@api_command
def replay(api: Api, *, source: str, event_id: str, as_json: bool) -> None:
    """Replay the jobs of an event. Each keeps its idempotency key, so no effect is repeated."""
    results = api.post("events", source, event_id, "replay")["replayed"]
    if as_json:
        output.as_json({"replayed": results})
    else:
        output.table(("JOB", "RESULT"), results.items())
    if "replayed" not in results.values():
        raise CommandError("no job was replayed: unfinished jobs run anyway, and jobs without a payload cannot run")


@events.command()
@click.option("--source", help="Only from this source.")
@click.option("--type", help="Only of this event type; invoice.* matches every type with that prefix.")
@click.option("--customer", help="Only of this Stripe customer id.")
@click.option(
    "--lines", type=click.IntRange(0, 1000), default=10, show_default=True, help="Start with so many recent events."
)
@api_command
def tail(api: Api, *, as_json: bool, lines: int, **filters: Any) -> None:
    """Print events as they are received, until Ctrl-C."""
    for event in _incoming(api, lines, given(filters)):
        if as_json:
            output.as_json_line(event)
        else:
            output.line("  ".join(_row(event)[:4]))


def _incoming(api: Api, lines: int, filters: dict[str, Any]) -> Iterator[Event]:
    """The last `lines` events, then new ones. Several events can share a millisecond, so each poll starts at the last
    one's time again and skips those already returned."""
    recent = list(api.rows("events", max(lines, 1), **filters))
    since, seen = _latest(recent)
    yield from reversed(recent[:lines])
    while True:
        time.sleep(POLL_SECONDS)
        new = [event for event in _since(api, since, filters) if _name(event) not in seen]
        yield from reversed(new)
        latest, names = _latest(new)
        since, seen = (latest, names) if latest > since else (since, seen | names)


def _since(api: Api, since: int, filters: dict[str, Any]) -> list[Event]:
    """Events received at or after `since` (ms since 1970), newest first. None while the service is unavailable: the
    next poll returns them."""
    try:
        return list(api.rows("events", MAX_NEW_EVENTS, since=since, **filters))
    except CommandError as error:
        if error.exit_code != UNAVAILABLE:
            raise
        click.echo(f"holdfast: {error.message}; trying again", err=True)
        return []


def _latest(events: list[Event]) -> tuple[int, set[str]]:
    """The time of the latest event (ms since 1970), and the names of all events of that time."""
    latest = max((event["received"] for event in events), default=0)
    return latest, {_name(event) for event in events if event["received"] == latest}


def _name(event: Event) -> str:
    return f"{event['source']}:{event['id']}"


def _row(event: Event) -> tuple[str, ...]:
    return output.timestamp(event["received"]), event["source"], event["id"], event["type"], event["state"]


def _tree(jobs: list[Job], parent: str | None = None, depth: int = 0) -> Iterator[tuple[int, Job]]:
    """Each job after the one that it follows, with its depth."""
    for job in jobs:
        if job["parent"] == parent:
            yield depth, job
            yield from _tree(jobs, job["id"], depth + 1)


def _print_job(job: Job, indent: str) -> None:
    output.line(f"{indent}{job['state']:<10}{job['task']}  {job['id']}")
    for attempt in job["attempts"]:
        duration = f"{attempt['ended'] - attempt['started']} ms" if attempt.get("ended") else "running"
        texts = (output.timestamp(attempt.get("started")), attempt.get("outcome"), duration, attempt.get("reason"))
        output.line(f"{indent}          {'  '.join(text for text in texts if text)}")
