"""Where finished documents lie: DOCUMENT_STORE, a folder or an S3 bucket. Each gets its name once, whole, for good."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from tasks.documents.lease_heartbeat import patiently

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished download."""

    name: str
    content_type: str
    sha256: str
    size: int


class Store(Protocol):
    """What both kinds can do. Raises TransientError where the store cannot be reached."""

    def find(self, stem: str) -> Stored | None:
        """The finished document whose name begins so."""

    def keep(self, part: Path, document: Stored, renew: Callable[[], None]) -> Stored:
        """Store a whole file. If a document of this name is there already, that one stays and is returned."""

    def read(self, name: str) -> Path | IO[bytes]:
        """Its content, to be sent to somebody."""


@functools.cache
def open_store(where: str) -> Store:
    """The store that DOCUMENT_STORE names."""
    if not where.startswith("s3://"):
        return Folder(Path(where).resolve())
    from tasks.documents.store_s3 import Bucket  # noqa: PLC0415  boto3 costs 30 MB that a folder does not need

    return Bucket(where)


def stem_for(document: str) -> str:
    """The file name, up to its first dot, for a document of ours. What is no plain name leads nowhere else."""
    return document if PLAIN_NAME.fullmatch(document) else hashlib.sha256(document.encode()).hexdigest()


def name_for(document: str, content_type: str) -> str:
    return stem_for(document) + (mimetypes.guess_extension(content_type.partition(";")[0].strip().lower()) or "")


class Folder:
    """A folder on this machine, or on a disk that all workers share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, stem: str) -> Stored | None:
        for path in [self._path / stem, *self._path.glob(f"{stem}.*")]:
            if path.is_file():
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                return Stored(path.name, kind, _digest(path), path.stat().st_size)
        return None

    def keep(self, part: Path, document: Stored, renew: Callable[[], None]) -> Stored:
        patiently(lambda: sync(part), renew)  # the bytes before the name
        try:
            os.link(part, self._path / document.name)  # a rename would replace what another attempt has stored
        except FileExistsError:
            return self.find(document.name.partition(".")[0]) or document
        sync(self._path)  # the name itself
        return document

    def read(self, name: str) -> Path:
        return self._path / name


def sync(path: Path) -> None:
    """What was written to the file or the folder is on disk afterwards."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
