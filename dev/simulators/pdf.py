"""A real PDF, made from nothing but a document id: the same id gives the same bytes on every machine."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable

WORDS = ("agreement", "amount", "clause", "customer", "delivery", "invoice", "notice", "party", "payment", "service")
LINES_PER_PAGE = 52


@functools.lru_cache(maxsize=32)
def document_pdf(document_id: str) -> bytes:
    """The document that the simulator makes for this id: 4 KB to 300 KB, or 4 MB when the id starts with `big-`."""
    dice = random.Random(hashlib.sha256(document_id.encode()).digest())
    pages = 900 if document_id.startswith("big-") else dice.randint(1, 60)
    return _pdf([_page(document_id, number, dice) for number in range(1, pages + 1)])


def _page(document_id: str, number: int, dice: random.Random) -> bytes:
    title = "".join(c for c in document_id if c.isascii() and (c.isalnum() or c in "-_. "))
    lines = [f"Document {title}, page {number}", ""]
    lines += [" ".join(dice.choices(WORDS, k=9)) for _ in range(LINES_PER_PAGE)]
    text = " T* ".join(f"({line}) Tj" for line in lines)
    return f"BT /F 10 Tf 13 TL 56 770 Td {text} ET".encode()


def _pdf(pages: list[bytes]) -> bytes:
    """Objects 1 to 3 are the catalog, the page tree and the font; then a page and its text for each."""
    refs = [4 + 2 * i for i in range(len(pages))]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % ref for ref in refs), len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for ref, page in zip(refs, pages, strict=True):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F 3 0 R >> >>"
            b" /Contents %d 0 R >>" % (ref + 1)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page))
    return _file(objects)


def _file(objects: Iterable[bytes]) -> bytes:
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, table)
    return bytes(out)
