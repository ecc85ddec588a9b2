"""A real PDF, made from nothing but a document id: the same id gives the same bytes on every machine."""

from __future__ import annotations

import functools
import hashlib
import random
from itertools import accumulate


@functools.lru_cache(maxsize=32)
def document_pdf(document_id: str) -> bytes:
    """One page with the id. 4 KB to 300 KB, or 4 MB if the id starts with `big-`, by an object that nothing shows."""
    dice = random.Random(hashlib.sha256(document_id.encode()).digest())
    size = 4_000_000 if document_id.startswith("big-") else dice.randint(4_000, 300_000)
    title = "".join(c for c in document_id if c.isascii() and (c.isalnum() or c in "-_. "))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources "
        b"<< /Font << /F 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        _stream(f"BT /F 16 Tf 56 770 Td (Document {title}) Tj ET".encode()),
        _stream(dice.randbytes(size // 2).hex().encode()),
    ]
    parts = [b"%PDF-1.4\n", *(b"%d 0 obj\n%b\nendobj\n" % numbered for numbered in enumerate(objects, 1))]
    *offsets, end = accumulate(map(len, parts))
    table = b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return b"".join([*parts, table, b"trailer\n<< /Size 7 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % end])


def _stream(content: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content)
