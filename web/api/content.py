"""`/content/<document>`: the file of a completed document, by a signed link (tasks/signed_link.py)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from flask import Blueprint, Response, request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from settings import Settings
from tasks import signed_link
from web.api.operation import operation
from web.downloads import Reader
from web.errors import HttpError
from web.queries.document_content import send_content

ERROR = "no such document, or the link has expired"
UNTIL = re.compile(r"[0-9]{1,12}")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


class LinkQuery(BaseModel):
    until: str = ""
    signature: str = ""


def blueprint(settings: Settings, sessions: Callable[[], Session]) -> Blueprint:
    """One page. The error is the same whether the document, the signature or the time is wrong."""
    pages = Blueprint("content", __name__)

    @pages.after_request
    def seal(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @pages.get(f"{signed_link.PATH}<document>")
    @operation(
        "Fetch the file of a completed document, by a signed link",
        {200: None},
        errors={404: ERROR, 429: "too many downloads at once with this link"},
        query=LinkQuery,
        public=True,
    )
    def linked(document: str) -> Response:
        until, signature = request.args.get("until", ""), request.args.get("signature", "")
        if not UNTIL.fullmatch(until) or not signed_link.is_valid(settings, document, until, signature, time.time()):
            raise HttpError(ERROR, 404)
        return send_content(settings, sessions, document, ERROR, Reader(f"{document} {until}", has_key=False))

    return pages
