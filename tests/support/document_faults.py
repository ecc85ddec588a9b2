"""The points at which a worker can be killed while it processes a document; see tests/support/handlers.py."""

from __future__ import annotations

from pathlib import Path

from tasks.clients import document_service
from tasks.documents import partial_file, store_folder, store_s3, submissions, transfer
from tasks.documents.partial_file import PartialFile
from tests.support.handlers import die_around, die_at

_found: dict[int, int] = {}  # the bytes that a part had when it was opened


def register() -> None:
    die_around(document_service, "request_processing", "before it is handed over", "handed over, before the commit")
    die_around(submissions, "poll_status", "before the service is asked", "asked, before the commit")
    die_around(PartialFile, "start_over", "before the head of the answer is kept", "at the head of the answer")
    _die_in_the_stream()
    die_around(transfer, "_verify", "received, before it is verified", "verified, before it is kept")
    die_around(store_folder, "sync", "before the bytes are synced", "synced, before it has its name")
    die_around(store_s3.S3Store, "_upload_part", "before the upload", "in the middle of the upload")
    for store in (store_folder.FolderStore, store_s3.S3Store):
        die_around(store, "save", "before it is kept", "kept, before the part is forgotten")
    _die_while_forgetting()


def _die_in_the_stream() -> None:
    write = PartialFile.write

    def dying(part: PartialFile, chunk: bytes) -> None:
        found = _found.setdefault(id(part), part.size)
        write(part, chunk)
        total = part.info.total or 0
        die_at("after the first bytes")
        if part.size > total / 3:
            die_at("in the middle")
        if found and part.size > total * 2 / 3:
            die_at("in the middle of the rest")

    setattr(PartialFile, "write", dying)  # noqa: B010  mypy wants the very signature


def _die_while_forgetting() -> None:
    forget = partial_file.delete_partials

    def dying(folder: Path, stem: str) -> None:
        first = min(folder.glob(f"{stem}.*"), default=None)
        if first:
            first.unlink()
            die_at("while the part is forgotten")
        forget(folder, stem)
        die_at("forgotten, before the commit")

    setattr(transfer, "delete_partials", dying)  # noqa: B010  where it is called from
