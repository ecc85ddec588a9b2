"""`holdfast dead`: what failed for good; run again, one by one or all that match, or put away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import CommandError
from cli.options import api_command, filters, given, limit

HEAD = ("DIED", "JOB", "TYPE", "REASON")
COUNTS = ("replayed", "skipped", "looked", "total")


@click.group()
def dead() -> None:
    """Dead letters: what failed for good and waits for a person."""


@dead.command("list")
@filters(of="dead letters")
@limit
@api_command
def list_dead(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """The newest that match."""
    found = list(api.rows("jobs", limit, state="dead", **filters))
    if as_json:
        return output.as_json({"jobs": found})
    return output.table(HEAD, ((output.at(job["finished"]), job["id"], job["type"], job["reason"]) for job in found))


@dead.command("show")
@click.argument("job")
@api_command
def show_job(api: Api, *, job: str, as_json: bool) -> None:
    """One job, whatever its state, with its attempts."""
    found = api.get("jobs", job)
    if as_json:
        return output.as_json(found)
    times = {name: output.at(found[name]) for name in ("created", "due", "finished", "discarded")}
    output.fields({name: value for name, value in (found | times).items() if name != "attempts"})
    rows = (
        (output.at(one.get("started")), one.get("outcome", "under way"), one.get("reason")) for one in found["attempts"]
    )
    return output.table(("ATTEMPT", "OUTCOME", "REASON"), rows)


@dead.command("replay")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--all-matching", is_flag=True, help="All dead letters that match the filters, and had died by now.")
@click.option("--dry-run", is_flag=True, help="With --all-matching: only say what that would do.")
@click.option("--no-wait", is_flag=True, help="With --all-matching: do not wait for the end.")
@filters(of="dead letters")
@api_command
def replay_dead(
    api: Api, *, jobs: tuple[str, ...], all_matching: bool, dry_run: bool, no_wait: bool, as_json: bool, **filters: Any
) -> None:
    """Run jobs again, under their idempotency keys: those named, or --all-matching."""
    wanted = given(filters)
    if bool(jobs) == all_matching:
        raise click.UsageError("name jobs, or say --all-matching")
    if jobs and (wanted or dry_run or no_wait):
        raise click.UsageError("filters, --dry-run and --no-wait go with --all-matching")
    if jobs:
        return _each(jobs, lambda job: api.post("jobs", job, "replay"), "replayed", as_json)
    if dry_run:
        return _forecast(api.post("replays", body=wanted | {"dry_run": True}), as_json)
    replay = api.post("replays", body=wanted)["id"]
    if no_wait:
        return output.as_json({"id": replay}) if as_json else click.echo(replay)
    return _watch(api, replay, as_json)


@dead.command("replays")
@limit
@api_command
def list_replays(api: Api, *, as_json: bool, limit: int) -> None:
    """What was run again with --all-matching, by whom, and how far that is."""
    found = api.get("replays", limit=min(limit, 200))
    if as_json:
        return output.as_json(found)
    head = ("ID", "BY", "STATE", *(count.upper() for count in COUNTS))
    return output.table(
        head, ([run["id"], run["by"], run["state"], *(run[n] for n in COUNTS)] for run in found["replays"])
    )


@dead.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--why", required=True, help="For the audit trail.")
@api_command
def discard(api: Api, *, jobs: tuple[str, ...], why: str, as_json: bool) -> None:
    """Put dead letters away that need nobody. They can still be replayed."""
    _each(jobs, lambda job: api.post("jobs", job, "discard", body={"why": why}), "discarded", as_json)


def _each(jobs: tuple[str, ...], call: Callable[[str], object], done: str, as_json: bool) -> None:
    """One that cannot be done keeps no other from it; but the exit code tells."""
    became: dict[str, str] = {}
    codes = []
    for job in jobs:
        try:
            call(job)
            became[job] = done
        except CommandError as error:
            became[job] = error.message
            codes.append(error.exit_code)
    if as_json:
        output.as_json(became)
    else:
        output.table(("JOB", ""), became.items())
    if codes:
        raise CommandError(f"{len(codes)} of {len(jobs)} were not {done}", max(codes))


def _forecast(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.as_json(told)
    some = "" if told["whole"] else f", of the newest {told['looked']} that were looked through"
    click.echo(f"would run again: {told['matching']}{some}")
    for what in ("tasks", "reasons"):
        for word, count in told[what].items():
            output.line(f"  {count:>6}  {word}")
    return None


def _watch(api: Api, replay: str, as_json: bool) -> None:
    """Whoever stops this stops only the telling."""
    now: dict[str, Any] = {}

    def look() -> tuple[int, int, str]:
        now.update(api.get("replays", replay))
        words = f"{now['state']}: {now['replayed']} run again, {now['looked']} of {now['total']} looked at"
        return now["looked"], now["total"], words

    click.echo(f"asked for: {replay}; a worker does it", err=True)
    output.follow(look, lambda: now["state"] == "finished")
    if as_json:
        output.as_json(now)
    else:
        click.echo(f"run again: {now['replayed']}, skipped (gone, or without their payload): {now['skipped']}")
