"""`holdfast send`: sign a sample event with the configured secret and send it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import click
import requests

from cli import output
from cli.errors import FAILURE, UNAVAILABLE, USAGE, CommandError
from cli.network import is_loopback
from cli.options import as_json
from settings import SettingsError, load, load_client

TIMEOUT_SECONDS = 10


@click.command()
@click.argument("type")
@click.option("--to", metavar="URL", help="Where to send it. Default: the receiver that the other commands use.")
@click.option("--source", help="Source of the event. Default: the source whose events of this type are routed.")
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=1, help="Number of events, each about another customer."
)
@click.option("--yes", is_flag=True, help="Send it even if the address is not on this machine.")
@as_json
def send(*, type: str, to: str | None, source: str | None, count: int, yes: bool, as_json: bool) -> None:
    """Sign a sample event and send it. It can be of any TYPE; the secret is the one in the settings.

    Event number N of every run is about the same customer: `send invoice.paid` pays the invoice of an earlier
    `send invoice.payment_failed`.
    """
    from cli.samples import sample, source_of, sources  # noqa: PLC0415  slow to import

    try:
        settings, receiver = load(), load_client().holdfast_url
    except SettingsError as error:
        raise CommandError(str(error), USAGE) from None
    name = source or source_of(type)
    if name not in (known := sources(settings)):
        have = ", ".join(known) or "none"
        raise CommandError(f"source {name} has no secret here; sources with a secret: {have} (--source)", USAGE)
    _check_target(to or receiver, yes)
    statuses = []
    with requests.Session() as session:
        for number in range(1, count + 1):
            one = sample(settings, name, type, number, int(time.time()))
            response = _post(session, to or receiver + one.path, one.body, one.headers)
            statuses.append(response.status_code)
            _print({"status": response.status_code, "event": one.event_id, "answer": response.text[:300]}, as_json)
    if rejected := [status for status in statuses if not 200 <= status < 300]:
        code = UNAVAILABLE if rejected[0] == 503 else FAILURE
        raise CommandError(f"{len(rejected)} of {count} events were not accepted", code)


def _check_target(url: str, yes: bool) -> None:
    """A signed event is processed by its receiver, which may send mails to customers. Raises UsageError."""
    host = urlsplit(url).hostname
    if urlsplit(url).scheme not in ("http", "https") or not host:
        raise click.UsageError("--to must be an http or https URL")
    if not (yes or is_loopback(host)):
        raise click.UsageError(f"{host} is not this machine and would process the event: add --yes to send it there")


def _post(session: requests.Session, url: str, body: bytes, headers: Any) -> requests.Response:
    headers = {"Content-Type": "application/json", **headers}
    try:
        return session.post(url, body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException:
        raise CommandError("no answer: is the receiver running? (--to)", UNAVAILABLE) from None


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.as_json_line(result)
    else:
        click.echo(f"{result['status']} {result['answer'].strip()}  {result['event']}")
