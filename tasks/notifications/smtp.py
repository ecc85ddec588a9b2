"""Mail by smtplib, with the server, sender and headers that Apprise reads from a mailto:// URL.

Apprise itself makes the text from the HTML and loses its links, cannot write to jürgen@example.com (RFC 6531), gives
each copy of a mail a Message-ID of its own, and does not wait long enough: a server may take ten minutes to confirm a
mail, and who gives up earlier sends it twice (RFC 5321, 4.5.3.2.6).
"""

from __future__ import annotations

import hashlib
import math
import smtplib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from apprise.plugins.email.base import NotifyEmail

from tasks.clients.responses import NoAnswer, connection_errors, end_of_call
from tasks.notifications.smtp_session import session
from tasks.notifications.templates import Rendered

PEER = "the mail server"
CONFIRM_SECONDS = 600
# Not folded: only what is longer than a line may be. https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1
POLICY = SMTP.clone(max_line_length=998)


class NotSent(Exception):
    """The server did not take the mail."""


class NotWritable(Exception):
    """The server cannot send to this address."""


def send_mail(service: NotifyEmail, message: Rendered, key: str, sender: str, deadline: float) -> None:
    """Send one mail to the service's targets. `sender` is the name of the sender if the URL has none.

    The same `key` gives the same Message-ID. Raises NotSent; NotWritable for a local part with non-ASCII characters if
    the server does not support SMTPUTF8; DeadlineReached if the server has not confirmed the mail by the `deadline` of
    the attempt (time.monotonic()).
    """
    mail, own_address = _make_mail(service, message, key, sender), str(service.from_addr[1])
    to = [address for _, address in service.targets]
    try:
        with connection_errors(PEER, OSError, deadline=deadline):  # SMTPException is an OSError
            refused = _send(service, mail, own_address, to, end_of_call(PEER, math.inf, deadline))
    except NoAnswer as error:
        raise NotSent(str(error)) from None
    if any(address in refused for address in to):
        raise NotSent("recipient refused")


def _send(service: NotifyEmail, mail: EmailMessage, sender: str, to: Sequence[str], until: float) -> Collection[str]:
    """Returns the recipients that the server refused, if it accepted others. Raises OSError and NotWritable."""
    try:
        with session(service, until) as server:
            server.limit(CONFIRM_SECONDS, until)
            return server.send_message(mail, sender, [*to, *service.cc, *service.bcc])
    except smtplib.SMTPNotSupportedError:
        raise NotWritable from None


def _make_mail(service: NotifyEmail, message: Rendered, key: str, sender: str) -> EmailMessage:
    name, address = [str(part or "") for part in service.from_addr]
    own_name = sender if name in ("", service.app_id) else name
    mail = EmailMessage(POLICY)
    mail["From"] = _address(address, own_name)
    mail["To"] = [_address(at, str(name or "")) for name, at in service.targets]
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{address.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic reply
    mail["X-Idempotency-Key"] = key
    if service.cc:
        mail["Cc"] = [_address(one) for one in sorted(service.cc)]
    if service.reply_to:
        mail["Reply-To"] = [_address(one) for one in sorted(service.reply_to)]
    for header, value in service.headers.items():
        del mail[header]
        mail[header] = value
    mail.set_content(message.text, cte="quoted-printable")
    mail.add_alternative(message.html, subtype="html", cte="quoted-printable")
    return mail


def _address(address: str, name: str = "") -> Address:
    local, _, domain = address.rpartition("@")
    return Address(name, local.removeprefix('"').removesuffix('"').replace("\\", ""), domain)
