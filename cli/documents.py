"""`holdfast documents`: have a document processed, and see how far it is."""

from __future__ import annotations

import json
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import CommandError
from cli.options import api_command, limit

FINAL = ("completed", "failed")
STATES = ("submitting", "processing", "downloading", *FINAL)


@click.group()
def documents() -> None:
    """Documents that the document service makes for us."""


@documents.command()
@click.argument("document_id")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="For the service: ocr=true, format=PDF.")
@click.option("--email", help="Who is told when it is there.")
@click.option("--agent", "agents", multiple=True, metavar="URL", help="An agent that is told; may be repeated.")
@click.option("--idempotency-key", help="The same key starts the same document, once.")
@click.option("--wait", is_flag=True, help="Until it is there, as `watch`.")
@api_command
def start(
    api: Api,
    *,
    document_id: str,
    options: tuple[str, ...],
    email: str | None,
    agents: tuple[str, ...],
    idempotency_key: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Have a document processed; answers our id of it."""
    wanted: dict[str, Any] = {"document_id": document_id}
    if options:
        wanted["options"] = dict(map(_option, options))
    if email or agents:
        wanted["notify"] = ({"email": email} if email else {}) | {"agents": list(agents)}
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    started = api.post("documents", body=wanted, headers=headers)
    if wait:
        _watch(api, started["id"], as_json)
    elif as_json:
        output.as_json(started)
    else:
        click.echo(started["id"])


@documents.command("list")
@click.option("--state", type=click.Choice(STATES), help="That stand so.")
@click.option("--q", help="Of this document_id.")
@limit
@api_command
def list_documents(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """The newest."""
    found = list(api.rows("documents", limit, **filters))
    if as_json:
        return output.as_json({"documents": found})
    rows = ((row["created_at"], row["id"], row["document_id"], row["status"], row["progress"]) for row in found)
    return output.table(("ASKED FOR", "ID", "DOCUMENT", "STATUS", "%"), rows)


@documents.command("show")
@click.argument("document", metavar="ID")
@api_command
def show_document(api: Api, *, document: str, as_json: bool) -> None:
    """One, as far as it is."""
    found = api.get("documents", document)
    return output.as_json(found) if as_json else output.fields(found)


@documents.command()
@click.argument("document", metavar="ID")
@api_command
def watch(api: Api, *, document: str, as_json: bool) -> None:
    """A bar, or lines where no terminal is, until it is there. Exit code 1 if it failed."""
    _watch(api, document, as_json)


def _watch(api: Api, document: str, as_json: bool) -> None:
    now: dict[str, Any] = {}

    def look() -> tuple[int, int, str]:
        now.update(api.get("documents", document))
        return _far(now)

    output.follow(look, lambda: now["status"] in FINAL)
    if as_json:
        output.as_json(now)
    else:
        output.fields(now)
    if now["status"] == "failed":
        raise CommandError(f"{document} failed: {now.get('error') or 'no reason given'}")


def _far(now: dict[str, Any]) -> tuple[int, int, str]:
    """By bytes while it is downloaded, if their number is known; else by what the service says."""
    received, total = now.get("received_bytes") or 0, now.get("total_bytes") or 0
    if now["status"] == "downloading" and received:
        if total:
            return received, total, f"downloading: {_megabytes(received)} of {_megabytes(total)}"
        return now["progress"], 100, f"downloading: {_megabytes(received)}"
    return now["progress"], 100, f"{now['status']}: {now['progress']} %"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def _option(text: str) -> tuple[str, Any]:
    """`ocr=true` and `pages=3` as JSON has them, anything else as a text. Raises UsageError."""
    name, given, value = text.partition("=")
    if not (name and given):
        raise click.UsageError("--option takes NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
