"""`holdfast send`: a sample event, signed with our own secret, to whatever address."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click
import requests

from cli import output
from cli.errors import FAILURE, UNAVAILABLE, USAGE, CommandError
from cli.options import as_json
from settings import SettingsError, load, load_client

TIMEOUT_SECONDS = 10


@click.command()
@click.argument("type")
@click.option("--to", metavar="URL", help="Default: the receiver that the API commands ask.")
@click.option("--source", help="Who sends it. Default: whoever the routes say sends this type.")
@click.option("--count", type=click.IntRange(1, 100_000), default=1, help="So many events, about as many objects.")
@click.option("--yes", is_flag=True, help="Send it, although the address is not on this machine.")
@as_json
def send(*, type: str, to: str | None, source: str | None, count: int, yes: bool, as_json: bool) -> None:
    """Sign a sample event of any TYPE with the secret in the settings, and send it.

    Events about one number, of whatever type, are about one customer: a failed invoice is paid by invoice.paid.
    """
    from cli.samples import sample, source_of, sources  # noqa: PLC0415  the libraries that sign take their time

    try:
        settings, here = load(), load_client().holdfast_url
    except SettingsError as error:
        raise CommandError(str(error), USAGE) from None
    sender = source or source_of(type)
    if sender not in (known := sources(settings)):
        raise CommandError(f"{sender} has no secret here; with one are: {', '.join(known) or 'none'} (--source)", USAGE)
    _may_go(to or here, yes)
    statuses = []
    with requests.Session() as session:
        for number in range(1, count + 1):
            made = sample(settings, sender, type, number, int(time.time()))
            answer = _post(session, to or here + made.path, made.body, made.headers)
            statuses.append(answer.status_code)
            _tell({"status": answer.status_code, "event": made.event_id, "answer": answer.text[:300]}, as_json)
    if refused := [status for status in statuses if not 200 <= status < 300]:
        raise CommandError(f"{len(refused)} of {count} were not taken", UNAVAILABLE if refused[0] == 503 else FAILURE)


def _may_go(url: str, yes: bool) -> None:
    """It is signed, so whoever gets it acts on it, and mails customers. Raises UsageError."""
    host = urlsplit(url).hostname
    if urlsplit(url).scheme not in ("http", "https") or not host:
        raise click.UsageError("--to takes an http or https URL")
    if not (yes or _is_loopback(host)):
        raise click.UsageError(f"{host} is not this machine, and would act on the event: say --yes to send it there")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _post(session: requests.Session, url: str, body: bytes, headers: Any) -> requests.Response:
    headers = {"Content-Type": "application/json", **headers}
    try:
        return session.post(url, body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException:
        raise CommandError("nobody answers there: is the receiver running? (--to)", UNAVAILABLE) from None


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.as_line(told)
    else:
        click.echo(f"{told['status']} {told['answer'].strip()}  {told['event']}")
