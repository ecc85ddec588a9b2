"""The store of finished documents: a folder or an S3 bucket (DOCUMENT_STORE). A name appears once, for a whole file."""

from __future__ import annotations

import hashlib
import math
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
    """A document store. Each method raises TransientError if the store cannot be reached."""

    def find(self, stem: str) -> Stored | None:
        """The finished document with this name, whatever its extension; None if there is none."""

    def save(self, part: Path, document: Stored, renew: Callable[[], None], deadline: float = math.inf) -> Stored:
        """Store a complete file. If the name exists already, the existing document stays and is returned.

        Raises DeadlineReached if a call of the store has not ended by the deadline of the attempt (time.monotonic()).
        """

    def read(self, name: str) -> Path | IO[bytes]:
        """The content of a stored document."""


def stem_for(document: str) -> str:
    """The file name up to its first dot: the document's id, or its SHA-256 if it could be a path."""
    return document if PLAIN_NAME.fullmatch(document) else hashlib.sha256(document.encode()).hexdigest()


def name_for(document: str, content_type: str) -> str:
    return stem_for(document) + (mimetypes.guess_extension(content_type.partition(";")[0].strip().lower()) or "")
