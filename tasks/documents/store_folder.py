"""DOCUMENT_STORE=/a/folder: a folder on this machine, or on a disk that all workers share."""

from __future__ import annotations

import hashlib
import math
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path

from tasks.documents.store import Stored
from tasks.lease_heartbeat import run_renewing_lease


class FolderStore:
    """A folder on this machine, or on a disk that all workers share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, stem: str) -> Stored | None:
        for path in [self._path / stem, *self._path.glob(f"{stem}.*")]:
            if path.is_file():
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                return Stored(path.name, kind, _digest(path), path.stat().st_size)
        return None

    def save(self, part: Path, document: Stored, renew: Callable[[], None], deadline: float = math.inf) -> Stored:
        run_renewing_lease(lambda: sync(part), renew, deadline)  # the bytes must be on disk before the name
        try:
            os.link(part, self._path / document.name)  # unlike a rename, it fails if another attempt has stored it
        except FileExistsError:
            return self.find(document.name.partition(".")[0]) or document
        sync(self._path)  # the name itself
        return document

    def read(self, name: str) -> Path:
        return self._path / name


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
