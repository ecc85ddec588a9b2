"""`holdfast documents`: request a document and follow its progress."""

from __future__ import annotations

import json
from typing import Any

import click

from cli import output
from cli.api import Api
from cli.errors import CommandError
from cli.options import api_command, limit
from cli.output import Progress

FINAL = ("completed", "failed")
STATES = ("submitting", "processing", "downloading", *FINAL)


@click.group()
def documents() -> None:
    """Request documents and follow their progress."""


@documents.command()
@click.argument("document_id")
@click.option(
    "--option", "options", multiple=True, metavar="NAME=VALUE", help="Option for the service: ocr=true, format=PDF."
)
@click.option("--email", help="Address to notify when the document is completed or has failed.")
@click.option("--agent", "agents", multiple=True, metavar="URL|NAME", help="Agent to notify; may be repeated.")
@click.option("--idempotency-key", help="Repeating a request with the same key returns the same document.")
@click.option("--wait", is_flag=True, help="Follow the progress to the end, like `watch`.")
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
    """Request processing of a document. Prints its id in Holdfast."""
    body: dict[str, Any] = {"document_id": document_id}
    if options:
        body["options"] = dict(map(_option, options))
    if email or agents:
        body["notify"] = ({"email": email} if email else {}) | {"agents": list(agents)}
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    started = api.post("documents", body=body, headers=headers)
    if wait:
        _follow(api, started["id"], as_json)
    elif as_json:
        output.as_json(started)
    else:
        click.echo(started["id"])


@documents.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--q", help="Only with this document_id.")
@limit
@api_command
def list_documents(api: Api, *, as_json: bool, limit: int, **filters: Any) -> None:
    """List documents, newest first."""
    found = list(api.rows("documents", limit, **filters))
    if as_json:
        return output.as_json({"documents": found})
    rows = ((row["created_at"], row["id"], row["document_id"], row["status"], row["progress"]) for row in found)
    return output.table(("REQUESTED", "ID", "DOCUMENT", "STATUS", "%"), rows)


@documents.command("show")
@click.argument("document", metavar="ID")
@api_command
def show_document(api: Api, *, document: str, as_json: bool) -> None:
    """Show one document with its current status."""
    found = api.get("documents", document)
    return output.as_json(found) if as_json else output.fields(found)


@documents.command()
@click.argument("document", metavar="ID")
@api_command
def watch(api: Api, *, document: str, as_json: bool) -> None:
    """Show the progress until the document is completed or has failed (exit code 1)."""
    _follow(api, document, as_json)


def _follow(api: Api, document: str, as_json: bool) -> None:
    last = output.follow(lambda: api.get("documents", document), _progress, lambda now: now["status"] in FINAL)
    if as_json:
        output.as_json(last)
    else:
        output.fields(last)
    if last["status"] == "failed":
        raise CommandError(f"{document} failed: {last.get('error') or 'no reason given'}")


def _progress(now: dict[str, Any]) -> Progress:
    """In bytes during a download of known size, otherwise in the percent reported by the service."""
    received, total = now.get("received_bytes") or 0, now.get("total_bytes") or 0
    if now["status"] == "downloading" and received:
        if total:
            return Progress(received, total, f"downloading: {_megabytes(received)} of {_megabytes(total)}")
        return Progress(now["progress"], 100, f"downloading: {_megabytes(received)}")
    return Progress(now["progress"], 100, f"{now['status']}: {now['progress']} %")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _option(text: str) -> tuple[str, Any]:
    """`ocr=true` and `pages=3` with their JSON values, other values as text. Raises UsageError."""
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise click.UsageError("--option must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
