"""Sending a message to one service, which is an Apprise URL. Mail is sent by smtp.py, all else by Apprise."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any
from urllib.parse import quote

import apprise
from apprise.plugins.email.base import NotifyEmail, PGPMode

from inbox.errors import PermanentError
from settings import ignore_netrc
from tasks.clients.responses import connection_errors, end_of_call
from tasks.notifications import smtp
from tasks.notifications.recipients import Recipient
from tasks.notifications.templates import Rendered
from tasks.time_limit import run_until
from telemetry import tracing

logging.getLogger("apprise").disabled = True  # its log lines hold recipients
ignore_netrc()
ASSET = apprise.AppriseAsset(async_mode=False)
STAND_IN = "customer@example.com"  # Apprise does not parse every valid address: a mail gets the real one afterwards
PEER = "the messaging service"
ANSWER_SECONDS = 30  # for services other than mail; Apprise's default of 4 repeats messages to slow ones


def send_message(
    url: str, message: Rendered, key: str, to: Recipient, sender: str = "", *, deadline: float = math.inf
) -> bool:
    """Send a message to the service at `url`, whose {email} and {phone} are those of `to`; True if it accepted it.

    `key` is the message's idempotency key, `sender` the name of a mail's sender if the URL has none. Raises
    DeadlineReached if the service has not answered by the `deadline` of the attempt (time.monotonic()).
    """
    service = _parse(url, to)
    if service is None:
        raise PermanentError("CUSTOMER_NOTIFY_URLS, ADMIN_NOTIFY_URLS and ALERT_NOTIFY_URLS must be Apprise URLs")
    with tracing.call("notify", f"{url.partition('://')[0]}://") as span:  # the rest holds names and tokens
        accepted = _send(service, message, key, sender, deadline)
        span.ended("accepted" if accepted else "rejected")
    return accepted


def mail_server(url: str) -> tuple[str, int] | None:
    """(host, port) of the mail server of an Apprise URL; ("", 0) for another service, None for an invalid URL."""
    service = _parse(url, Recipient("a@example.com", "+49301234567"))
    if service is None:
        return None
    return (str(service.smtp_host), int(service.port or 25)) if isinstance(service, NotifyEmail) else ("", 0)


def _parse(url: str, to: Recipient) -> Any:
    is_mail = url.startswith(("mailto://", "mailtos://"))
    email = STAND_IN if is_mail else to.email
    filled = url.replace("{email}", quote(email, safe="")).replace("{phone}", quote(to.phone, safe=""))
    if "rto=" not in filled:
        filled += f"{'&' if '?' in filled else '?'}rto={ANSWER_SECONDS}"
    service = _mail_service(filled) if is_mail else apprise.Apprise.instantiate(filled, ASSET)
    if isinstance(service, NotifyEmail):
        service.targets = [(name, to.email if at == STAND_IN else at) for name, at in service.targets]
    return service


def _mail_service(url: str) -> Any:
    """As `Apprise.instantiate`, which first imports all 200 services: 11 MB and 0.7 s in each process of the pool."""
    mail: Any = NotifyEmail
    parsed = mail.parse_url(url.replace("/#", "/%23"))
    try:
        return mail(asset=ASSET, **parsed) if parsed else None
    except Exception:  # whatever it raises for a wrong URL
        return None


def _send(service: Any, message: Rendered, key: str, sender: str, deadline: float) -> bool:
    if type(service) is not NotifyEmail or service.pgp_mode != PGPMode.NONE:
        return _notify(apprise.Apprise(service, asset=ASSET), message, deadline)
    try:
        smtp.send_mail(service, message, key, sender, deadline)
    except smtp.NotSent:
        return False
    except smtp.NotWritable:
        raise PermanentError("the mail server does not support addresses with non-ASCII characters") from None
    return True


def _notify(services: apprise.Apprise, message: Rendered, deadline: float) -> bool:
    """By Apprise, which limits each read of a call but not the whole of it."""
    until = end_of_call(PEER, math.inf, deadline)
    with connection_errors(PEER, TimeoutError, deadline=deadline):
        notify = partial(services.notify, message.text, message.subject, body_format=apprise.NotifyFormat.TEXT)
        return bool(run_until(until, notify))
