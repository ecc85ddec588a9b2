"""A download that is not whole yet: its bytes under a temporary name, with what is known of their source.

Whoever comes after a broken connection or a SIGKILL goes on where it ended. A holder that sleeps over its lease still
has its lock on the file, so that its successor begins one of its own, and neither writes into the other's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO

import msgspec

from inbox.errors import LeaseLost, PermanentError, TransientError
from tasks.clients.safe_http import Stream
from tasks.documents.checksums import announced

ABANDONED_AFTER_SECONDS = 86400  # no retry waits longer
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+( *;[ -~]*)?", re.ASCII)  # RFC 6838, 4.2; and parameters
BOOT = Path("/proc/sys/kernel/random/boot_id")


class ResumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer that began a download said of it."""

    source: str  # digest of the URL
    boot: str  # a power cut may have kept the length of a file and lost its bytes
    content_type: str = ""
    validator: str = ""  # for If-Range: a strong ETag or date. Without one, two versions might be mixed: start over
    total: int | None = None
    digest: tuple[str, str] | None = None  # algorithm and hex


class PartialFile:
    """The file of one download, locked."""

    def __init__(self, path: Path, file: IO[bytes], url: str) -> None:
        self.path, self._file = path, file
        self._url = url
        self.size = os.fstat(file.fileno()).st_size
        self.facts = self._recalled() or self._new_facts()
        if not self.resumable:
            self._truncate()

    @property
    def resumable(self) -> bool:
        return bool(self.facts.validator)

    @property
    def whole(self) -> bool:
        return self.resumable and self.size == self.facts.total

    def asked(self) -> dict[str, str]:
        """The headers that ask for what is missing, or for all of it if it has changed (RFC 9110, 13.1.5)."""
        return {"Range": f"bytes={self.size}-", "If-Range": self.facts.validator} if self.size else {}

    def continued_by(self, answer: Stream) -> bool:
        """Whether a 206 holds just what was asked for."""
        said = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not said or not self.size or answer.packing:
            return False
        first, last, total = (int(number) for number in said.groups())
        named = "ETag" if self.facts.validator.startswith('"') else "Last-Modified"
        same = answer.headers.get(named, self.facts.validator) == self.facts.validator
        span = first == self.size and last < total and answer.length in (None, last - first + 1)
        return same and span and self.facts.total in (None, total)

    def begin(self, answer: Stream) -> None:
        """The whole document is coming: what was here is of no use."""
        self._truncate()  # before the new facts, or they would vouch for old bytes
        packed = bool(answer.packing)  # lengths, digests and ranges are then of the packed form
        self.facts = self._new_facts(
            content_type=_media_type(answer.headers.get("Content-Type", "")),
            validator="" if packed else _validator(answer),
            total=None if packed else answer.length,
            digest=None if packed else announced(answer.headers),
        )
        if self.resumable:
            self._facts_path.write_bytes(msgspec.json.encode(self.facts))

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            written = self._file.write(rest)
            rest = rest[written:]
            self.size += written

    def discard(self) -> None:
        """Forget the bytes, and what was known of them first: it must not vouch for what comes after."""
        for path in (self._facts_path, self.path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()  # and lets go of the lock

    @property
    def _facts_path(self) -> Path:
        return self.path.with_suffix(".json")

    def _new_facts(self, **known: object) -> ResumeInfo:
        return ResumeInfo(source=hashlib.sha256(self._url.encode()).hexdigest(), boot=_boot(), **known)  # type: ignore[arg-type]

    def _recalled(self) -> ResumeInfo | None:
        """What was written down of these bytes, if it still holds; it may be torn."""
        try:
            facts = msgspec.json.decode(self._facts_path.read_bytes(), type=ResumeInfo)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        here = self._new_facts()
        return facts if (facts.source, facts.boot) == (here.source, here.boot) else None

    def _truncate(self) -> None:
        self._file.truncate(0)
        self.size = 0


@contextmanager
def open_partial(folder: Path, setting: str, stem: str, url: str, now: datetime) -> Iterator[PartialFile]:
    """The part of the download `stem`, to go on with. It stays if a later attempt can use it, or else goes.

    Raises TransientError, naming the `setting` of the folder, where that cannot be written, and passes on what the
    block raises.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder, now)
        part = _claimed(folder, stem, url)
    except OSError as error:
        raise _unwritable(setting, error) from None
    try:
        yield part
    except OSError as error:  # a full disk wants its space back
        part.discard()
        raise _unwritable(setting, error) from None
    except (PermanentError, LeaseLost):
        part.discard()
        raise
    finally:
        if not part.resumable:
            part.discard()
        part.close()


def delete_partials(folder: Path, stem: str) -> None:
    """The document is stored: nothing unfinished of it is needed, by whomever it was begun."""
    for path in sorted(folder.glob(f"{stem}.*")):  # .json before .part, as in discard
        path.unlink(missing_ok=True)


def _claimed(folder: Path, stem: str, url: str) -> PartialFile:
    for name in (stem, f"{stem}.{uuid.uuid4().hex}"):
        path = folder / f"{name}.part"
        file = path.open("ab", buffering=0)
        if _locked(file, path) and os.fstat(file.fileno()).st_nlink == 1:  # 2: it is a finished document already
            return PartialFile(path, file, url)
        file.close()
    raise TransientError("another attempt is about to store the document")


def _locked(file: IO[bytes], path: Path) -> bool:
    """Whether the file is ours now, and was not finished by another between our opening and locking it."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _sweep(folder: Path, now: datetime) -> None:
    """Remove what killed downloads have left behind and nobody came back for."""
    for path in folder.glob("*.part"):
        with suppress(FileNotFoundError):  # another download finished or swept it
            if now.timestamp() - path.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    with path.open("ab") as file:
        if _locked(file, path):
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


def _media_type(said: str) -> str:
    """A Content-Type, if it is one; http.client passes on whatever was sent, and it goes into our database."""
    return said if MEDIA_TYPE.fullmatch(said) and len(said) <= 255 else "application/octet-stream"


def _validator(answer: Stream) -> str:
    """What proves that the rest belongs to these bytes: a strong ETag, or a date that is older than the answer by far.

    RFC 9110, 8.8.2.2: a document may change twice within the second of its date.
    """
    etag = answer.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    modified = answer.headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(answer.headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError):
        return ""
    return modified if age >= timedelta(seconds=60) else ""


def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:  # no Linux
        return ""


def _unwritable(setting: str, error: OSError) -> TransientError:
    return TransientError(f"the folder for downloads ({setting}) cannot be written ({os.strerror(error.errno or 0)})")
