"""A document's row and its file, for the API, the signed links and the console."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Response, request, send_file
from sqlalchemy.orm import Session

from settings import Settings
from tasks.documents.store_factory import open_store
from tasks.models import Document
from web.downloads import Reader
from web.errors import HttpError
from web.flask_host import mark_as_file


def find_document(sessions: Callable[[], Session], document: str) -> Document | None:
    if not document.isprintable():  # Postgres rejects NUL in a text, even in a query
        return None
    with sessions() as db:
        return db.get(Document, document)


def send_content(
    settings: Settings, sessions: Callable[[], Session], document: str, not_found: str, reader: Reader
) -> Response:
    """The file of a completed document: Range requests work with a folder store, other stores send the whole file.
    Raises HttpError 404 with the message `not_found`."""
    row = find_document(sessions, document)
    if row is None or row.status != "completed" or row.stored_as is None:
        raise HttpError(not_found, 404)
    stored = open_store(settings.document_store).read(row.stored_as)
    mark_as_file(request.environ, reader)
    mimetype = row.content_type or "application/octet-stream"
    answer = send_file(stored, mimetype=mimetype, as_attachment=True, download_name=row.stored_as)
    if row.size and not isinstance(stored, Path):  # for a Path, Flask sets the length, which depends on the range
        answer.content_length = row.size
    answer.headers["X-Content-Type-Options"] = "nosniff"  # a browser must not run it as a page of this site
    return answer
