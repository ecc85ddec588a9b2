"""Opens the store that DOCUMENT_STORE names."""

from __future__ import annotations

import functools
from pathlib import Path

from tasks.documents.store import Store
from tasks.documents.store_folder import Folder


@functools.cache
def open_store(where: str) -> Store:
    """The store that DOCUMENT_STORE names."""
    if not where.startswith("s3://"):
        return Folder(Path(where).resolve())
    from tasks.documents.store_s3 import Bucket  # noqa: PLC0415  boto3 costs 30 MB that a folder does not need

    return Bucket(where)
