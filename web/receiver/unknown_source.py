"""What Flask answers at the webhook addresses: 404 for a source that is not configured, 405 for any method but POST."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NoReturn

from flask import Blueprint

from web.errors import HttpError
from web.receiver.receiver import PATHS, SOURCE_PREFIX
from web.receiver.rejection_log import RejectionLog
from web.receiver.sources import Source


def blueprint(sources: Mapping[str, Source]) -> Blueprint:
    """The addresses of all sources; web/receiver/asgi.py serves those of configured ones before Flask does. The
    response does not name the configured sources; the log does."""
    pages, rejections = Blueprint("webhooks", __name__), RejectionLog()

    def not_configured(name: str = "") -> NoReturn:
        rejections.log("(none)", "no such source", time.monotonic(), configured=sorted(sources))
        raise HttpError("no such source", 404)

    for path in (f"{SOURCE_PREFIX}<name>", *PATHS):
        pages.add_url_rule(path, "not_configured", not_configured, methods=["POST"])
    return pages
