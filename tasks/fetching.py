"""One download: from a URL into the document store, in bounded memory, keeping its lease alive."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from inbox.errors import PermanentError
from tasks import storage
from tasks.clients.answers import check
from tasks.clients.safe_http import Stream, get_stream
from tasks.handling import Attempt

MOST_BYTES = 20 * 1024**3
RENEW_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished download."""

    name: str
    content_type: str
    sha256: str
    size: int


def fetch(attempt: Attempt, url: str, document: str, progress: Callable[[int], None]) -> Stored:
    """Download `url` and store it under a name made from our own `document` id.

    Raises TransientError (no answer, "not now", broken off half-way, disk full), PermanentError (gone, forbidden, too
    big), LeaseLost. `progress` is told the bytes so far, often.
    """
    settings = attempt.settings
    with get_stream(url, settings, settings.doc_service_api_key, settings.doc_service_url) as answer:
        check("the document's address", answer.status, answer.headers, attempt.now)
        content_type = answer.headers.get("Content-Type", "application/octet-stream")
        name = storage.name_for(document, content_type)
        with storage.writing(settings.document_store, name, attempt.now) as file:
            sha256, size = _copy(attempt, answer, file, progress)
    return Stored(name, content_type, sha256, size)


def _copy(attempt: Attempt, answer: Stream, file: IO[bytes], progress: Callable[[int], None]) -> tuple[str, int]:
    digest, size, renewed = hashlib.sha256(), 0, time.monotonic()
    for chunk in answer.chunks():
        digest.update(chunk)
        size += file.write(chunk)
        if size > MOST_BYTES:
            raise PermanentError(f"the document is bigger than {MOST_BYTES} bytes")
        if time.monotonic() - renewed >= RENEW_EVERY_SECONDS:
            attempt.renew()
            progress(size)
            renewed = time.monotonic()
    attempt.renew()
    return digest.hexdigest(), size
