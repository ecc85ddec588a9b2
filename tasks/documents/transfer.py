"""One download: from a URL into the document store, in bounded memory, while renewing the job's lease.

1. Receive into a file with a temporary name. After a crash here the next attempt requests the rest (Range).
2. Verify length, digest and type. After a crash here the next attempt has all bytes and makes no request.
3. Save under the final name, whole and never twice. After a crash here the next attempt finds it by its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients.responses import raise_for_status
from tasks.clients.safe_http import Stream, get_stream
from tasks.documents.checksums import Hasher
from tasks.documents.partial_file import PartialFile, ResumeInfo, delete_partials, open_partial
from tasks.documents.store import Stored, name_for, stem_for
from tasks.documents.store_factory import open_store
from tasks.handler import Attempt
from tasks.lease_heartbeat import run_renewing_lease

RENEW_EVERY_SECONDS = 1.0
PEER = "the document's address"
EXPIRED_STATUSES = frozenset({401, 403, 404, 410})  # what servers return for a URL that has expired
MAGIC = {  # the first bytes of files of a type, so that no error page is stored in place of one
    "application/pdf": b"%PDF-",
    "application/zip": b"PK",
    "image/jpeg": b"\xff\xd8\xff",
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/gif": b"GIF8",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """Digest (hex) and size (bytes) of the result according to the document service; None if it states none."""

    sha256: str | None = None
    size: int | None = None


UNSTATED = Expected()
Progress = Callable[[int, int | None], None]


class UrlExpired(PermanentError):
    """The URL is refused, usually because it has expired; the document service may have a new one."""


def download_to_store(
    attempt: Attempt, url: str, document: str, progress: Progress, expected: Expected = UNSTATED
) -> Stored:
    """Download `url` and store it under a name derived from our own `document` id.

    `progress` is called often, with the bytes received so far and the total, if known.

    Raises TransientError (no response, a retryable status, interrupted, too slow, another digest or size than
    announced, disk full), UrlExpired (gone, forbidden), PermanentError (too large, wrong type), LeaseLost.
    """
    settings, stem = attempt.settings, stem_for(document)
    store, folder = open_store(settings.document_store), Path(settings.spool_folder)
    # By an earlier attempt or another job.
    stored = run_renewing_lease(lambda: store.find(stem), attempt.renew, attempt.deadline)
    if stored is None:
        with open_partial(folder, settings.spool_folder_setting, stem, url, attempt.now) as part:
            digests = _receive(attempt, url, part, progress)
            _verify(part, digests, expected)
            attempt.renew()
            name = name_for(document, part.info.content_type)
            finished = Stored(name, part.info.content_type, digests["sha256"], part.size)
            stored = store.save(part.path, finished, attempt.renew, attempt.deadline)
    delete_partials(folder, stem)
    return stored


def _receive(attempt: Attempt, url: str, part: PartialFile, progress: Progress) -> dict[str, str]:
    """Receive all missing bytes into the partial file; return the digests (hex) of the whole file."""
    if part.is_complete:
        return _write(attempt, part, (), progress)
    settings = attempt.settings
    key, service, headers = settings.doc_service_api_key, settings.doc_service_url, part.range_headers()
    with get_stream(url, settings, key, service, headers, deadline=attempt.deadline) as response:
        _accept_response(attempt, part, response)
        return _write(attempt, part, response.chunks(), progress)


def _accept_response(attempt: Attempt, part: PartialFile, response: Stream) -> None:
    """Check the status and headers: the response must continue the partial file, or it replaces it."""
    partial = response.status == HTTPStatus.PARTIAL_CONTENT
    if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or (
        partial and not part.is_continued_by(response)
    ):
        part.discard()
        raise TransientError(f"{PEER} sent another range than requested; the download starts over")
    if response.status in EXPIRED_STATUSES:
        raise UrlExpired(f"{PEER} answered {response.status}")
    raise_for_status(PEER, response.status, response.headers, attempt.now)
    if not partial:
        if response.status != HTTPStatus.OK:
            raise PermanentError(f"{PEER} answered {response.status}, which has no document")
        part.start_over(response)
    _check_limits(part.info, attempt.settings)


def _check_limits(info: ResumeInfo, settings: Settings) -> None:
    media_type = _media_type(info)
    if settings.document_types and not any(fnmatch(media_type, allowed) for allowed in settings.document_types):
        raise PermanentError("the document has a type that DOCUMENT_TYPES does not allow")
    _check_size(info.total or 0, settings)


def _check_size(size: int, settings: Settings) -> None:
    if size > settings.max_document_bytes:
        raise PermanentError(f"the document is larger than {settings.max_document_bytes} bytes (MAX_DOCUMENT_BYTES)")


def _write(attempt: Attempt, part: PartialFile, chunks: Iterable[bytes], progress: Progress) -> dict[str, str]:
    """Append the chunks to the partial file, while a thread computes the digests of all of it."""
    renewed = time.monotonic()
    algorithms = {"sha256", part.info.digest[0]} if part.info.digest else {"sha256"}
    with Hasher(part.path, algorithms) as hasher:
        hasher.advance_to(part.size)
        for chunk in chunks:
            part.write(chunk)
            hasher.advance_to(part.size)
            _check_size(part.size, attempt.settings)
            if time.monotonic() - renewed >= RENEW_EVERY_SECONDS:
                attempt.renew()
                progress(part.size, part.info.total)
                renewed = time.monotonic()
        return run_renewing_lease(hasher.result, attempt.renew)


def _verify(part: PartialFile, digests: dict[str, str], expected: Expected) -> None:
    """Check length, digest and type. Raises TransientError if a new download may pass, PermanentError if not."""
    info = part.info
    if info.total not in (None, part.size):
        raise TransientError(f"{PEER} sent {part.size} of {info.total} bytes")
    if info.digest and digests[info.digest[0]] != info.digest[1]:
        part.discard()
        raise TransientError(f"the document's {info.digest[0]} differs from what {PEER} announced")
    if expected.size not in (None, part.size) or expected.sha256 not in (None, digests["sha256"]):
        part.discard()
        raise TransientError("the document's sha256 or size differs from what the document service stated")
    with part.path.open("rb") as file:
        magic = MAGIC.get(_media_type(info), b"")
        if file.read(len(magic)) != magic:
            raise PermanentError(f"the document was served as {_media_type(info)} but is not of that type")


def _media_type(info: ResumeInfo) -> str:
    return info.content_type.partition(";")[0].strip().lower()
