"""Where finished documents are stored: DOCUMENT_STORE, a folder or an S3 bucket. Each gets its name once, whole."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

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


def stem_for(document: str) -> str:
    """The file name, up to its first dot, for a document of ours. What is no plain name leads nowhere else."""
    return document if PLAIN_NAME.fullmatch(document) else hashlib.sha256(document.encode()).hexdigest()


def name_for(document: str, content_type: str) -> str:
    return stem_for(document) + (mimetypes.guess_extension(content_type.partition(";")[0].strip().lower()) or "")
