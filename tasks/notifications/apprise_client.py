"""Rendering a message from its template, and sending it through Apprise."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import apprise
from apprise.plugins.email.base import NotifyEmail

from inbox.errors import PermanentError
from settings import Settings
from tasks.notifications.localize import localize_params
from telemetry import tracing

logging.getLogger("apprise").disabled = True  # its log lines hold recipients

TEMPLATES = Path(__file__).with_name("templates")
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # becomes part of a path
ASSET = apprise.AppriseAsset(async_mode=False)


def render_message(settings: Settings, kind: str, locale: str | None, params: dict[str, str]) -> tuple[str, str]:
    """(subject, body) from the template of this kind: its first line is the subject, the rest the body.

    Raises PermanentError for a template that is not UTF-8 or uses an unknown parameter.
    """
    path = template_path(settings, kind, locale)
    try:
        subject, _, body = path.read_text(encoding="utf-8").partition("\n")
        values = localize_params(params, path.parent.name)
        return Template(subject.strip()).substitute(values), Template(body.strip()).substitute(values)
    except (KeyError, ValueError):  # a UnicodeDecodeError is a ValueError
        name = f"{path.parent.name}/{path.name}"
        raise PermanentError(f"{name} must be UTF-8, and may use only the $names that this message has") from None


def template_path(settings: Settings, kind: str, locale: str | None) -> Path:
    """The template for de-AT: de-AT/<kind>.txt, de/<kind>.txt or <kind>.txt, in TEMPLATES first and then in ours."""
    tag = (locale or "").replace("_", "-")
    languages = [tag, tag.partition("-")[0]] if LOCALE.fullmatch(tag) else []
    folders = [Path(settings.templates)] if settings.templates else []
    paths = [folder / part / f"{kind}.txt" for folder in (*folders, TEMPLATES) for part in (*languages, "")]
    return next((path for path in paths if path.is_file()), paths[-1])


def with_idempotency_key(url: str, key: str) -> str:
    """The Apprise URL, for mail with the idempotency key in the header X-Idempotency-Key."""
    if not url.startswith(("mailto://", "mailtos://")):
        return url
    return f"{url}{'&' if '?' in url else '?'}+X-Idempotency-Key={quote(key, safe='')}"


def send_message(url: str, subject: str, body: str) -> bool:
    """Send one message to one service (an Apprise URL); True if the service accepted it."""
    service = apprise.Apprise(asset=ASSET)
    if not service.add(url):
        raise PermanentError("CUSTOMER_NOTIFY_URLS, ADMIN_NOTIFY_URLS and ALERT_NOTIFY_URLS must be Apprise URLs")
    scheme = url.partition("://")[0]  # only the scheme: the rest holds names and tokens
    with tracing.call("notify", f"{scheme}://") as span:
        accepted = bool(service.notify(title=subject, body=body, body_format=apprise.NotifyFormat.TEXT))
        span.ended("accepted" if accepted else "rejected")
    return accepted


def mail_server(url: str) -> tuple[str, int] | None:
    """(host, port) of the mail server of an Apprise URL; ("", 0) for another service, None for an invalid URL."""
    filled = url.replace("{email}", "a@example.com").replace("{phone}", "+49301234567")
    service: Any = apprise.Apprise.instantiate(filled, ASSET)
    if service is None:
        return None
    return (str(service.smtp_host), int(service.port or 25)) if isinstance(service, NotifyEmail) else ("", 0)
