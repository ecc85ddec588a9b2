"""The words of a message, and handing it to one of the services that Apprise can reach."""

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

logging.getLogger("apprise").disabled = True  # it writes recipients into its lines

TEMPLATES = Path(__file__).with_name("templates")
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # becomes part of a path
ASSET = apprise.AppriseAsset(async_mode=False)


def render_message(settings: Settings, kind: str, locale: str | None, params: dict[str, str]) -> tuple[str, str]:
    """(subject, body) from the template of this kind: its first line is the subject, the rest the body.

    Raises PermanentError for a template that somebody has broken.
    """
    path = template_path(settings, kind, locale)
    try:
        subject, _, body = path.read_text(encoding="utf-8").partition("\n")
        told = localize_params(params, path.parent.name)
        return Template(subject.strip()).substitute(told), Template(body.strip()).substitute(told)
    except (KeyError, ValueError):  # a UnicodeDecodeError is a ValueError
        name = f"{path.parent.name}/{path.name}"
        raise PermanentError(f"{name} is not UTF-8, or uses a $name that this message does not have") from None


def template_path(settings: Settings, kind: str, locale: str | None) -> Path:
    """The template for de-AT: de-AT/<kind>.txt, de/<kind>.txt or <kind>.txt, in TEMPLATES first and then in ours."""
    wanted = (locale or "").replace("_", "-")
    languages = [wanted, wanted.partition("-")[0]] if LOCALE.fullmatch(wanted) else []
    folders = [Path(settings.templates)] if settings.templates else []
    paths = [folder / part / f"{kind}.txt" for folder in (*folders, TEMPLATES) for part in (*languages, "")]
    return next((path for path in paths if path.is_file()), paths[-1])


def with_idempotency_key(url: str, key: str) -> str:
    """A mail carries the idempotency key in a header of its own."""
    if not url.startswith(("mailto://", "mailtos://")):
        return url
    return f"{url}{'&' if '?' in url else '?'}+X-Idempotency-Key={quote(key, safe='')}"


def send_message(url: str, subject: str, body: str) -> bool:
    """Hand one message to one service; says whether it took it."""
    service = apprise.Apprise(asset=ASSET)
    if not service.add(url):
        raise PermanentError(
            "one of CUSTOMER_NOTIFY_URLS, ADMIN_NOTIFY_URLS and ALERT_NOTIFY_URLS holds what is no Apprise URL"
        )
    scheme = url.partition("://")[0]  # what follows it are names and tokens
    with tracing.call("notify", f"{scheme}://") as span:
        taken = bool(service.notify(title=subject, body=body, body_format=apprise.NotifyFormat.TEXT))
        span.ended("taken" if taken else "not taken")
    return taken


def mail_server(url: str) -> tuple[str, int] | None:
    """(host, port) of the mail server behind an Apprise URL, ("", 0) of another service; None if it is no such URL."""
    filled = url.replace("{email}", "a@example.com").replace("{phone}", "+49301234567")
    service: Any = apprise.Apprise.instantiate(filled, ASSET)
    if service is None:
        return None
    return (str(service.smtp_host), int(service.port or 25)) if isinstance(service, NotifyEmail) else ("", 0)
