"""`holdfast events`: what arrived, and what became of it."""

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
PAUSE_SECONDS = 2.0
Job = dict[str, Any]


@click.group()
def events() -> None:
    """What arrived, and what became of it."""


@events.command("list")
@filters(of="events")
@limit
@api_command
def list_events(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """The newest that match."""
    found = list(api.rows("events", limit, **filters))
    if as_json:
        return output.as_json({"events": found})
    return output.table(HEAD, map(_row, found))


@events.command("show")
@click.argument("source")
@click.argument("event_id", metavar="ID")
@api_command
def show_event(api: Api, *, source: str, event_id: str, as_json: bool) -> None:
    """One, with its jobs, their attempts, and its payload as people may see it."""
    event = api.get("events", source, event_id)
    if as_json:
        return output.as_json(event)
    words = {name: event[name] for name in ("source", "id", "type", "state", "deliveries")}
    output.fields(words | {"received": output.at(event["received"])})
    for depth, job in _tree(event["jobs"]):
        _job(job, "  " * depth)
    for text in json.dumps(event["payload"], indent=2, ensure_ascii=False).splitlines():
        output.line(text)
    return None


@events.command()
@click.argument("source")
@click.argument("event_id", metavar="ID")
@api_command
def replay(api: Api, *, source: str, event_id: str, as_json: bool) -> None:
    """Run its jobs again, under their idempotency keys."""
    became = api.post("events", source, event_id, "replay")["replayed"]
    if as_json:
        output.as_json({"replayed": became})
    else:
        output.table(("JOB", ""), became.items())
    if "replayed" not in became.values():
        raise CommandError("none of its jobs was run again: owed ones run anyway, pruned ones have lost their payload")


@events.command()
@click.option("--source", help="From this sender.")
@click.option("--type", help="Of this type; invoice.* is all that begin so.")
@click.option("--customer", help="Of this customer's Stripe id.")
@click.option("--lines", type=click.IntRange(0, 1000), default=10, show_default=True, help="Of the last.")
@api_command
def tail(api: Api, *, as_json: bool, lines: int, **filters: Any) -> None:
    """Each as it arrives, until Ctrl-C."""
    for event in _arriving(api, lines, given(filters)):
        if as_json:
            output.as_line(event)
        else:
            output.line("  ".join(_row(event)[:4]))


def _arriving(api: Api, lines: int, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The last `lines`, and then what is new. Two may have come in one millisecond: those seen of it are left out."""
    first = list(api.rows("events", max(lines, 1), **filters))
    since, seen = _newest(first)
    yield from reversed(first[:lines])
    while True:
        time.sleep(PAUSE_SECONDS)
        new = [event for event in _since(api, since, filters) if _name(event) not in seen]
        yield from reversed(new)
        last, names = _newest(new)
        since, seen = (last, names) if last > since else (since, seen | names)


def _since(api: Api, since: int, filters: dict[str, Any]) -> list[dict[str, Any]]:
    """What came since then, the newest first; nothing, while nobody answers: it comes with the next look."""
    try:
        return list(api.rows("events", 10_000, since=since, **filters))
    except CommandError as error:
        if error.exit_code != UNAVAILABLE:
            raise
        click.echo(f"holdfast: {error.message}; trying again", err=True)
        return []


def _newest(events: list[dict[str, Any]]) -> tuple[int, set[str]]:
    """When the last came (ms since 1970), and which came then."""
    last = max((event["received"] for event in events), default=0)
    return last, {_name(event) for event in events if event["received"] == last}


def _name(event: dict[str, Any]) -> str:
    return f"{event['source']}:{event['id']}"


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    return output.at(event["received"]), event["source"], event["id"], event["type"], event["state"]


def _tree(
    jobs: list[dict[str, Any]], parent: str | None = None, depth: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each job behind the one that it follows, and how deep it stands."""
    for job in jobs:
        if job["follows"] == parent:
            yield depth, job
            yield from _tree(jobs, job["id"], depth + 1)


def _job(job: Job, indent: str) -> None:
    output.line(f"{indent}{job['state']:<10}{job['task']}  {job['id']}")
    for attempt in job["attempts"]:
        took = f"{attempt['ended'] - attempt['started']} ms" if attempt.get("ended") else "under way"
        words = (attempt.get("outcome"), took, attempt.get("reason"))
        click.echo(
            f"{indent}          {output.at(attempt.get('started'))}  {'  '.join(str(word) for word in words if word)}"
        )
