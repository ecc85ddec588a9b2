"""A real PDF, made from nothing but a document id: the same id gives the same bytes on every machine."""

from __future__ import annotations

import functools
import hashlib
import random
from itertools import accumulate

WORDS = ("agreement", "amount", "clause", "customer", "delivery", "invoice", "notice", "party", "payment", "service")
LINES_PER_PAGE = 52
PAGE = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F 3 0 R >> >> /Contents {} 0 R >>"


@functools.lru_cache(maxsize=32)
def document_pdf(document_id: str) -> bytes:
    """4 KB to 300 KB, or 4 MB if the id starts with `big-`."""
    dice = random.Random(hashlib.sha256(document_id.encode()).digest())
    pages = 900 if document_id.startswith("big-") else dice.randint(1, 60)
    refs = [4 + 2 * number for number in range(pages)]  # of the pages; the text of each follows it
    kids = " ".join(f"{ref} 0 R" for ref in refs)
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>"]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    title = "".join(c for c in document_id if c.isascii() and (c.isalnum() or c in "-_. "))
    for number, ref in enumerate(refs, 1):
        text = _page([f"Document {title}, page {number}", ""], dice)
        objects += [PAGE.format(ref + 1), f"<< /Length {len(text)} >>\nstream\n{text}\nendstream"]
    parts = ["%PDF-1.4\n", *(f"{number} 0 obj\n{body}\nendobj\n" for number, body in enumerate(objects, 1))]
    *offsets, end = accumulate(map(len, parts))
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    head, trailer = f"xref\n0 {size}\n0000000000 65535 f \n", f"trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return "".join([*parts, head, table, trailer, f"startxref\n{end}\n%%EOF\n"]).encode()


def _page(lines: list[str], dice: random.Random) -> str:
    lines = lines + [" ".join(dice.choices(WORDS, k=9)) for _ in range(LINES_PER_PAGE)]
    return f"BT /F 10 Tf 13 TL 56 770 Td {' T* '.join(f'({line}) Tj' for line in lines)} ET"
