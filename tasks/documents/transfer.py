"""One download: from a URL into the document store, in bounded memory, keeping its lease alive.

1. Receive, into a file with a temporary name. Dying in it: the next attempt asks for the rest, by Range.
2. Verify: length, digest, type. Dying before it: the next attempt has all the bytes, and asks nobody.
3. Keep: the name, for a whole file and never twice. Dying after it: the next attempt finds it by its name.
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
from tasks.documents.lease_heartbeat import run_renewing_lease
from tasks.documents.partial_file import PartialFile, ResumeInfo, delete_partials, open_partial
from tasks.documents.store import Stored, name_for, stem_for
from tasks.documents.store_factory import open_store
from tasks.handler import Attempt

RENEW_EVERY_SECONDS = 1.0
WHO = "the document's address"
EXPIRED = frozenset({401, 403, 404, 410})  # how servers answer to an address whose time is over
MAGIC = {  # what a file of such a type begins with; an error page in its place is not to be stored
    "application/pdf": b"%PDF-",
    "application/zip": b"PK",
    "image/jpeg": b"\xff\xd8\xff",
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/gif": b"GIF8",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What the document service says of its result; None where it says nothing."""

    sha256: str | None = None
    size: int | None = None


NOTHING = Expected()
Progress = Callable[[int, int | None], None]


class AddressRefused(PermanentError):
    """The address is of no use any more; there may be another for the same document."""


def fetch(attempt: Attempt, url: str, document: str, progress: Progress, expected: Expected = NOTHING) -> Stored:
    """Download `url` and store it under a name made from our own `document` id.

    Raises TransientError (no answer, "not now", broken off half-way, too slow, another digest or size than announced,
    disk full), AddressRefused (gone, forbidden), PermanentError (too big, of the wrong type), LeaseLost. `progress` is
    told the bytes so far, and of how many, often.
    """
    settings, stem = attempt.settings, stem_for(document)
    store, folder = open_store(settings.document_store), Path(settings.spool_folder)
    stored = run_renewing_lease(lambda: store.find(stem), attempt.renew)  # of an earlier attempt, or of another job's
    if stored is None:
        with open_partial(folder, settings.spool_folder_setting, stem, url, attempt.now) as part:
            digests = _received(attempt, url, part, progress)
            _verify(part, digests, expected)
            attempt.renew()
            name = name_for(document, part.facts.content_type)
            whole = Stored(name, part.facts.content_type, digests["sha256"], part.size)
            stored = store.keep(part.path, whole, attempt.renew)
    delete_partials(folder, stem)
    return stored


def _received(attempt: Attempt, url: str, part: PartialFile, progress: Progress) -> dict[str, str]:
    """All bytes are in the part; their digests."""
    if part.whole:
        return _written(attempt, part, (), progress)
    settings = attempt.settings
    with get_stream(url, settings, settings.doc_service_api_key, settings.doc_service_url, part.asked()) as answer:
        _begin(attempt, part, answer)
        return _written(attempt, part, answer.chunks(), progress)


def _begin(attempt: Attempt, part: PartialFile, answer: Stream) -> None:
    """Look at the head of the answer: does it go on where we are, or start over?"""
    partial = answer.status == HTTPStatus.PARTIAL_CONTENT
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or (partial and not part.continued_by(answer)):
        part.discard()
        raise TransientError(f"{WHO} sends another range than was asked for; the download starts over")
    if answer.status in EXPIRED:
        raise AddressRefused(f"{WHO} answered {answer.status}")
    raise_for_status(WHO, answer.status, answer.headers, attempt.now)
    if not partial:
        if answer.status != HTTPStatus.OK:
            raise PermanentError(f"{WHO} answered {answer.status}, which brings no document")
        part.begin(answer)
    _check_head(part.facts, attempt.settings)


def _check_head(facts: ResumeInfo, settings: Settings) -> None:
    kind = _kind(facts)
    if settings.document_types and not any(fnmatch(kind, allowed) for allowed in settings.document_types):
        raise PermanentError("the document is of a type that DOCUMENT_TYPES does not allow")
    _check_size(facts.total or 0, settings)


def _check_size(size: int, settings: Settings) -> None:
    if size > settings.max_document_bytes:
        raise PermanentError(f"the document is bigger than {settings.max_document_bytes} bytes (MAX_DOCUMENT_BYTES)")


def _written(attempt: Attempt, part: PartialFile, chunks: Iterable[bytes], progress: Progress) -> dict[str, str]:
    """Write the chunks to the end of the part, while a thread digests all of it."""
    renewed = time.monotonic()
    algorithms = {"sha256", part.facts.digest[0]} if part.facts.digest else {"sha256"}
    with Hasher(part.path, algorithms) as hasher:
        hasher.upto(part.size)
        for chunk in chunks:
            part.write(chunk)
            hasher.upto(part.size)
            _check_size(part.size, attempt.settings)
            if time.monotonic() - renewed >= RENEW_EVERY_SECONDS:
                attempt.renew()
                progress(part.size, part.facts.total)
                renewed = time.monotonic()
        return run_renewing_lease(hasher.result, attempt.renew)


def _verify(part: PartialFile, digests: dict[str, str], expected: Expected) -> None:
    """Length, digest, type. Raises TransientError where another download may be whole, PermanentError where not."""
    facts = part.facts
    if facts.total not in (None, part.size):
        raise TransientError(f"{WHO} sent {part.size} of {facts.total} bytes")
    if facts.digest and digests[facts.digest[0]] != facts.digest[1]:
        part.discard()
        raise TransientError(f"the document's {facts.digest[0]} is not what {WHO} said")
    if expected.size not in (None, part.size) or expected.sha256 not in (None, digests["sha256"]):
        part.discard()
        raise TransientError("the document's sha256 or size is not what the document service said")
    with part.path.open("rb") as file:
        magic = MAGIC.get(_kind(facts), b"")
        if file.read(len(magic)) != magic:
            raise PermanentError(f"the document says that it is {_kind(facts)}, and is not")


def _kind(facts: ResumeInfo) -> str:
    return facts.content_type.partition(";")[0].strip().lower()
