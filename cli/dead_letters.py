"""`holdfast dead`: list, replay and discard dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import CommandError
from cli.options import api_command, filters, given, limit

HEAD = ("DIED", "JOB", "TYPE", "REASON")
COUNTS = ("replayed", "skipped", "scanned", "total")
COUNT_HEADS = ("REPLAYED", "SKIPPED", "CHECKED", "TOTAL")


@click.group()
def dead() -> None:
    """List, replay and discard dead letters. These are jobs that failed permanently or used up their attempts."""


@dead.command("list")
@filters(of="dead letters")
@limit
@api_command
def list_dead(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """List the dead letters that match, newest first."""
    found = list(api.rows("jobs", limit, state="dead", **filters))
    if as_json:
        return output.as_json({"jobs": found})
    rows = ((output.timestamp(job["finished"]), job["id"], job["type"], job["reason"]) for job in found)
    return output.table(HEAD, rows)


@dead.command("show")
@click.argument("job")
@api_command
def show_job(api: Api, *, job: str, as_json: bool) -> None:
    """Show a job in any state, with its attempts."""
    found = api.get("jobs", job)
    if as_json:
        return output.as_json(found)
    times = {name: output.timestamp(found[name]) for name in ("created", "due", "finished", "discarded")}
    output.fields({name: value for name, value in (found | times).items() if name != "attempts"})
    rows = (
        (output.timestamp(one.get("started")), one.get("outcome", "running"), one.get("reason"))
        for one in found["attempts"]
    )
    return output.table(("STARTED", "OUTCOME", "REASON"), rows)


@dead.command("replay")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--all-matching", is_flag=True, help="Replay all dead letters that match the filters and died by now.")
@click.option("--dry-run", is_flag=True, help="With --all-matching: only show what would be replayed.")
@click.option("--no-wait", is_flag=True, help="With --all-matching: return at once instead of showing the progress.")
@filters(of="dead letters")
@api_command
def replay_dead(
    api: Api, *, jobs: tuple[str, ...], all_matching: bool, dry_run: bool, no_wait: bool, as_json: bool, **filters: Any
) -> None:
    """Replay the named jobs, or --all-matching. Each keeps its idempotency key, so no effect is repeated."""
    query = given(filters)
    if bool(jobs) == all_matching:
        raise click.UsageError("name one or more jobs, or use --all-matching")
    if jobs and (query or dry_run or no_wait):
        raise click.UsageError("filters, --dry-run and --no-wait require --all-matching")
    if jobs:
        return _for_each(jobs, lambda job: api.post("jobs", job, "replay"), "replayed", as_json)
    if dry_run:
        return _preview(api.post("replays", body=query | {"dry_run": True}), as_json)
    replay = api.post("replays", body=query)["id"]
    if no_wait:
        return output.as_json({"id": replay}) if as_json else click.echo(replay)
    return _follow(api, replay, as_json)


@dead.command("replays")
@limit
@api_command
def list_replays(api: Api, *, as_json: bool, limit: int) -> None:
    """List the replays that were started with --all-matching, newest first, with their progress."""
    found = api.get("replays", limit=min(limit, 200))
    if as_json:
        return output.as_json(found)
    rows = ([run["id"], run["by"], run["state"], *(run[count] for count in COUNTS)] for run in found["replays"])
    return output.table(("ID", "BY", "STATE", *COUNT_HEADS), rows)


@dead.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--reason", required=True, help="Why, for the audit log.")
@api_command
def discard(api: Api, *, jobs: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Discard dead letters that need no action. A discarded job can still be replayed."""
    _for_each(jobs, lambda job: api.post("jobs", job, "discard", body={"reason": reason}), "discarded", as_json)


def _for_each(jobs: tuple[str, ...], call: Callable[[str], object], done: str, as_json: bool) -> None:
    """Call for every job, also after a failed one. Raises CommandError at the end if any failed."""
    results: dict[str, str] = {}
    codes = []
    for job in jobs:
        try:
            call(job)
            results[job] = done
        except CommandError as error:
            results[job] = error.message
            codes.append(error.exit_code)
    if as_json:
        output.as_json(results)
    else:
        output.table(("JOB", "RESULT"), results.items())
    if codes:
        raise CommandError(f"{len(codes)} of {len(jobs)} jobs were not {done}", max(codes))


def _preview(preview: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.as_json(preview)
    checked = "" if preview["complete"] else f" (only the newest {preview['scanned']} were checked)"
    click.echo(f"would be replayed: {preview['matching']}{checked}")
    for group in ("tasks", "reasons"):
        for name, count in preview[group].items():
            output.line(f"  {count:>6}  {name}")
    return None


def _follow(api: Api, replay: str, as_json: bool) -> None:
    click.echo(f"replay {replay} requested, waiting for a worker", err=True)
    last = output.follow(lambda: api.get("replays", replay), _progress, lambda now: bool(now["state"] == "finished"))
    if as_json:
        output.as_json(last)
    else:
        click.echo(f"replayed: {last['replayed']}, skipped (no longer dead, or payload deleted): {last['skipped']}")


def _progress(now: dict[str, Any]) -> output.Progress:
    text = f"{now['state']}: {now['replayed']} replayed, {now['scanned']} of {now['total']} checked"
    return output.Progress(now["scanned"], now["total"], text)
