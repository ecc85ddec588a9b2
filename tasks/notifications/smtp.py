"""Mail by smtplib, with the server, sender and headers that Apprise reads from a mailto:// URL.

Apprise itself makes the text from the HTML and loses its links, cannot write to jürgen@example.com (RFC 6531), gives
each copy of a mail a Message-ID of its own, and does not wait long enough: a server may take ten minutes to confirm a
mail, and who gives up earlier sends it twice (RFC 5321, 4.5.3.2.6).
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from apprise.plugins.email.base import NotifyEmail
from apprise.plugins.email.common import SecureMailMode

from tasks.notifications.templates import Rendered

CONFIRM_SECONDS = 600
# Not folded: only what is longer than a line may be. https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1
POLICY = SMTP.clone(max_line_length=998)


class NotSent(Exception):
    """The server did not take the mail; str() is the kind of the error."""


class NotWritable(Exception):
    """The server cannot send to this address."""


def send_mail(service: NotifyEmail, message: Rendered, key: str, sender: str) -> None:
    """Send one mail to the service's targets. `sender` is the name of the sender if the URL has none.

    The same `key` gives the same Message-ID. Raises NotSent, and NotWritable for a local part with non-ASCII characters
    if the server does not support SMTPUTF8.
    """
    mail, own_address = _make_mail(service, message, key, sender), str(service.from_addr[1])
    to = [address for _, address in service.targets]
    try:
        server = _connect(service)
        try:
            refused = server.send_message(mail, own_address, [*to, *service.cc, *service.bcc])
        finally:
            _disconnect(server, service.socket_connect_timeout)
    except smtplib.SMTPNotSupportedError:
        raise NotWritable from None
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(type(error).__name__) from None
    if any(address in refused for address in to):
        raise NotSent("recipient refused")


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


def _connect(service: NotifyEmail) -> smtplib.SMTP:
    """A connection that is secured and logged in as the URL says. Its steps have `cto` seconds, the confirmation has
    CONFIRM_SECONDS."""
    context = ssl.create_default_context()
    if not service.verify_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port, seconds = str(service.smtp_host), int(service.port or 0), service.socket_connect_timeout
    if service.secure_mode == SecureMailMode.SSL:
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=seconds)
    try:
        if service.secure_mode == SecureMailMode.STARTTLS:
            server.starttls(context=context)
        if service.user and service.password:
            server.login(service.user, service.password)
        if server.sock is not None:
            server.sock.settimeout(CONFIRM_SECONDS)
    except BaseException:
        server.close()
        raise
    return server


def _disconnect(server: smtplib.SMTP, seconds: float) -> None:
    """Say good-bye; the mail is sent, or not, whatever the server answers."""
    with suppress(OSError, smtplib.SMTPException):
        if server.sock is not None:
            server.sock.settimeout(seconds)
        server.quit()
