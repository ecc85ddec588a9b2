"""Opens the store that DOCUMENT_STORE names."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tasks.documents.store import Store
from tasks.documents.store_folder import FolderStore


@functools.cache
def open_store(where: str) -> Store:
    """The store that DOCUMENT_STORE names. A process has one, whose connections its threads share."""
    if not where.startswith("s3://"):
        return FolderStore(Path(where).resolve())
    from tasks.documents.store_s3 import S3Store  # noqa: PLC0415  boto3 takes 30 MB of memory, which a folder does not need

    return S3Store(where)


os.register_at_fork(after_in_child=open_store.cache_clear)  # two processes must not share connections
