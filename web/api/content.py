"""`/content/<document>`: a finished document for whoever has a signed link to it (tasks/signed_link.py)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from flask import Blueprint, Response, request
from sqlalchemy.orm import Session

from settings import Settings
from tasks import signed_link
from web.errors import HttpError
from web.queries.document_content import send_content

UNTIL = re.compile(r"[0-9]{1,12}")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def blueprint(settings: Settings, sessions: Callable[[], Session]) -> Blueprint:
    """The one page. Whatever is wrong with a link, the answer is the same."""
    pages = Blueprint("content", __name__)

    @pages.after_request
    def seal(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @pages.get(f"{signed_link.PATH}<document>")
    def linked(document: str) -> Response:
        until, signature = request.args.get("until", ""), request.args.get("signature", "")
        if not UNTIL.fullmatch(until) or not signed_link.is_valid(settings, document, until, signature, time.time()):
            raise HttpError("no such document, or the link is over", 404)
        return send_content(settings, sessions, document, "no such document, or the link is over")

    return pages
