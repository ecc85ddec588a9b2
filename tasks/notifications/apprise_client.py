"""Sending a message to one service, which is an Apprise URL. Mail is sent by smtp.py, all else by Apprise."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import apprise
from apprise.plugins.email.base import NotifyEmail, PGPMode

from inbox.errors import PermanentError
from settings import ignore_netrc
from tasks.notifications import smtp
from tasks.notifications.recipients import Recipient
from tasks.notifications.templates import Rendered
from telemetry import tracing

logging.getLogger("apprise").disabled = True  # its log lines hold recipients
ignore_netrc()
ASSET = apprise.AppriseAsset(async_mode=False)
STAND_IN = "customer@example.com"  # Apprise does not parse every valid address: a mail gets the real one afterwards
ANSWER_SECONDS = 30  # for services other than mail; Apprise's default of 4 repeats messages to slow ones


def send_message(url: str, message: Rendered, key: str, to: Recipient, sender: str = "") -> bool:
    """Send a message to the service at `url`, whose {email} and {phone} are those of `to`; True if it accepted it.

    `key` is the message's idempotency key, `sender` the name of a mail's sender if the URL has none.
    """
    service = _parse(url, to)
    if service is None:
        raise PermanentError("CUSTOMER_NOTIFY_URLS, ADMIN_NOTIFY_URLS and ALERT_NOTIFY_URLS must be Apprise URLs")
    with tracing.call("notify", f"{url.partition('://')[0]}://") as span:  # the rest holds names and tokens
        accepted = _send(service, message, key, to, sender)
        span.ended("accepted" if accepted else "rejected")
    return accepted


def mail_server(url: str) -> tuple[str, int] | None:
    """(host, port) of the mail server of an Apprise URL; ("", 0) for another service, None for an invalid URL."""
    service = _parse(url, Recipient("a@example.com", "+49301234567"))
    if service is None:
        return None
    return (str(service.smtp_host), int(service.port or 25)) if isinstance(service, NotifyEmail) else ("", 0)


def _parse(url: str, to: Recipient) -> Any:
    email = STAND_IN if url.startswith(("mailto://", "mailtos://")) else to.email
    filled = url.replace("{email}", quote(email, safe="")).replace("{phone}", quote(to.phone, safe=""))
    if "rto=" not in filled:
        filled += f"{'&' if '?' in filled else '?'}rto={ANSWER_SECONDS}"
    service: Any = apprise.Apprise.instantiate(filled, ASSET)
    if isinstance(service, NotifyEmail):
        service.targets = [(name, to.email if at == STAND_IN else at) for name, at in service.targets]
    return service


def _send(service: Any, message: Rendered, key: str, to: Recipient, sender: str) -> bool:
    if type(service) is not NotifyEmail or service.pgp_mode != PGPMode.NONE:
        services = apprise.Apprise(service, asset=ASSET)
        return bool(services.notify(title=message.subject, body=message.text, body_format=apprise.NotifyFormat.TEXT))
    try:
        smtp.send_mail(service, message, key, sender)
    except smtp.NotSent:
        return False
    except smtp.NotWritable:
        raise PermanentError("the mail server does not support addresses with non-ASCII characters") from None
    return True
