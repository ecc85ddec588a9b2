"""A partial download: its bytes in a file with a temporary name, and a JSON file beside it with what a resume needs.

The next attempt resumes after a broken connection or a SIGKILL. A stale worker, whose lease has expired, still holds
the lock on its file, so its successor uses a new file, and neither writes into the other's.
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
from tasks.documents.checksums import announced_digest

ABANDONED_AFTER_SECONDS = 86400  # longer than any delay between retries
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+( *;[ -~]*)?", re.ASCII)  # RFC 6838, 4.2, with parameters
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ResumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the first response of a download stated."""

    source: str  # digest of the URL
    boot: str  # boot id: after a power failure a file may have its length but not its bytes
    content_type: str = ""
    validator: str = ""  # for If-Range: a strong ETag or date. Without one a resume could mix versions
    total: int | None = None
    digest: tuple[str, str] | None = None  # algorithm and hex


class PartialFile:
    """The locked file of one download."""

    def __init__(self, path: Path, file: IO[bytes], url: str) -> None:
        self.path, self._file = path, file
        self._url = url
        self.size = os.fstat(file.fileno()).st_size
        self.info = self._load_info() or self._new_info()
        if not self.is_resumable:
            self._truncate()

    @property
    def is_resumable(self) -> bool:
        return bool(self.info.validator)

    @property
    def is_complete(self) -> bool:
        return self.is_resumable and self.size == self.info.total

    def range_headers(self) -> dict[str, str]:
        """Headers that request the missing bytes, or the whole document if it has changed (RFC 9110, 13.1.5)."""
        return {"Range": f"bytes={self.size}-", "If-Range": self.info.validator} if self.size else {}

    def is_continued_by(self, response: Stream) -> bool:
        """True if a 206 response holds exactly the missing bytes of the same version."""
        stated = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not stated or not self.size or response.content_encoding:
            return False
        first, last, total = (int(number) for number in stated.groups())
        named = "ETag" if self.info.validator.startswith('"') else "Last-Modified"
        same = response.headers.get(named, self.info.validator) == self.info.validator
        span = first == self.size and last < total and response.length in (None, last - first + 1)
        return same and span and self.info.total in (None, total)

    def start_over(self, response: Stream) -> None:
        """Discard the bytes received so far: the response holds the whole document."""
        self._truncate()  # first, or a crash would leave old bytes with new resume info
        compressed = bool(response.content_encoding)  # lengths, digests and ranges then refer to the compressed bytes
        self.info = self._new_info(
            content_type=_media_type(response.headers.get("Content-Type", "")),
            validator="" if compressed else _validator(response),
            total=None if compressed else response.length,
            digest=None if compressed else announced_digest(response.headers),
        )
        if self.is_resumable:
            self._info_path.write_bytes(msgspec.json.encode(self.info))

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            written = self._file.write(rest)
            rest = rest[written:]
            self.size += written

    def discard(self) -> None:
        """Delete both files, the resume info first: it must never describe the bytes of a later download."""
        for path in (self._info_path, self.path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()  # releases the lock

    @property
    def _info_path(self) -> Path:
        return self.path.with_suffix(".json")

    def _new_info(self, **known: object) -> ResumeInfo:
        return ResumeInfo(source=hashlib.sha256(self._url.encode()).hexdigest(), boot=_boot_id(), **known)  # type: ignore[arg-type]

    def _load_info(self) -> ResumeInfo | None:
        """The stored resume info, if it is readable and of this URL and this boot."""
        try:
            info = msgspec.json.decode(self._info_path.read_bytes(), type=ResumeInfo)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        here = self._new_info()
        return info if (info.source, info.boot) == (here.source, here.boot) else None

    def _truncate(self) -> None:
        self._file.truncate(0)
        self.size = 0


@contextmanager
def open_partial(folder: Path, setting: str, stem: str, url: str, now: datetime) -> Iterator[PartialFile]:
    """Open the partial file of the download `stem`; on exit it is kept if a later attempt can resume it, else deleted.

    Raises TransientError, naming the `setting` of the folder, if that cannot be written, and whatever the block raises.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _delete_abandoned(folder, now)
        part = _claim(folder, stem, url)
    except OSError as error:
        raise _unwritable_error(setting, error) from None
    try:
        yield part
    except OSError as error:  # free the space of a full disk
        part.discard()
        raise _unwritable_error(setting, error) from None
    except (PermanentError, LeaseLost):
        part.discard()
        raise
    finally:
        if not part.is_resumable:
            part.discard()
        part.close()


def delete_partials(folder: Path, stem: str) -> None:
    """Delete all partial files of a document that is stored, including those of other attempts."""
    for path in sorted(folder.glob(f"{stem}.*")):  # sorted: .json before .part, as in discard
        path.unlink(missing_ok=True)


def _claim(folder: Path, stem: str, url: str) -> PartialFile:
    for name in (stem, f"{stem}.{uuid.uuid4().hex}"):
        path = folder / f"{name}.part"
        file = path.open("ab", buffering=0)
        if _try_lock(file, path) and os.fstat(file.fileno()).st_nlink == 1:  # 2: it is stored
            return PartialFile(path, file, url)
        file.close()
    raise TransientError("another attempt is about to store the document")


def _try_lock(file: IO[bytes], path: Path) -> bool:
    """Lock the file. False if another attempt holds the lock, or has finished it between our opening and locking it."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _delete_abandoned(folder: Path, now: datetime) -> None:
    """Delete the files of downloads that were killed and never resumed."""
    for path in folder.glob("*.part"):
        with suppress(FileNotFoundError):  # another attempt finished or deleted it
            if now.timestamp() - path.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                _delete_unless_locked(path)


def _delete_unless_locked(path: Path) -> None:
    with path.open("ab") as file:
        if _try_lock(file, path):
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


def _media_type(stated: str) -> str:
    """The Content-Type if it is well-formed: http.client does not check it, and it is stored in the database."""
    return stated if MEDIA_TYPE.fullmatch(stated) and len(stated) <= 255 else "application/octet-stream"


def _validator(response: Stream) -> str:
    """A strong ETag, or a Last-Modified at least a minute older than the response; "" if there is none.

    A younger date is a weak validator: a document may change twice within one second (RFC 9110, 8.8.2.2).
    """
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    modified = response.headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(response.headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (TypeError, ValueError):
        return ""
    return modified if age >= timedelta(seconds=60) else ""


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return ""


def _unwritable_error(setting: str, error: OSError) -> TransientError:
    return TransientError(f"the folder for downloads ({setting}) cannot be written ({os.strerror(error.errno or 0)})")
