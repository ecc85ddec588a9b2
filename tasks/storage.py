"""Where finished documents lie: the folder DOCUMENT_STORE."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from inbox.errors import TransientError

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
ABANDONED_AFTER_SECONDS = 86400  # longer than a download may take


def name_for(document: str, content_type: str) -> str:
    """The file name for a document of ours. An id that is no plain name is digested, so that it leads nowhere else."""
    plain = document if PLAIN_NAME.fullmatch(document) else hashlib.sha256(document.encode()).hexdigest()
    return plain + (mimetypes.guess_extension(content_type.partition(";")[0].strip().lower()) or "")


@contextmanager
def writing(store: str, name: str, now: datetime) -> Iterator[IO[bytes]]:
    """A file to write; at the end of the block it is on disk under its name, whole, or not there at all.

    Raises TransientError where the folder cannot be written, and passes on what the block raises.
    """
    folder = Path(store)
    incoming = folder / ".incoming"
    part = incoming / f"{uuid.uuid4().hex}.part"
    try:
        incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming, now)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
        _sync_folder(folder)
    except OSError as error:
        raise TransientError(f"DOCUMENT_STORE cannot be written ({os.strerror(error.errno or 0)})") from None
    finally:
        with suppress(OSError):  # it has its name by now, or was never made
            part.unlink()


def _sweep(incoming: Path, now: datetime) -> None:
    """Remove what killed downloads have left behind."""
    for part in incoming.glob("*.part"):
        with suppress(FileNotFoundError):  # another download finished or swept it
            if now.timestamp() - part.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """The name itself must be on disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
