"""The points at which a worker can be killed while it processes a document; see tests/support/handlers.py."""

from __future__ import annotations

from pathlib import Path

from tasks.documents import partial_file, transfer
from tasks.documents.partial_file import PartialFile
from tests.support.crash_points import DOCUMENTS
from tests.support.handlers import die_around_each, die_at

_found: dict[int, int] = {}  # the size of each part when it was opened


def register() -> None:
    die_around_each(DOCUMENTS)
    _die_in_the_stream()
    _die_while_deleting()


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

    setattr(PartialFile, "write", dying)  # noqa: B010  mypy requires the same signature


def _die_while_deleting() -> None:
    delete = partial_file.delete_partials

    def dying(folder: Path, stem: str) -> None:
        first = min(folder.glob(f"{stem}.*"), default=None)
        if first:
            first.unlink()
            die_at("while the part is deleted")
        delete(folder, stem)
        die_at("after the part is deleted, before the commit")

    setattr(transfer, "delete_partials", dying)  # noqa: B010  in the module that calls it
