"""Decompressing bodies in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

CHUNK_BYTES = 1024 * 1024
GZIP = 31  # wbits of zlib.decompressobj
# At the end of each gzip member zlib copies the rest of its input: many small members cost the square of this size.
GZIP_INPUT_BYTES = 16 * 1024


def decompress(compressed: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress gzip of any number of members. A gzip bomb uses no more than CHUNK_BYTES of memory at a time.

    Raises zlib.error if the data is invalid or incomplete.
    """
    decompressor = zlib.decompressobj(GZIP)
    for piece in _slices(compressed):
        rest = piece
        while rest:
            decompressor = zlib.decompressobj(GZIP) if decompressor.eof else decompressor
            data = decompressor.decompress(rest, CHUNK_BYTES)
            rest = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            if data or not rest:  # b"" is yielded, too: it lets the caller renew its lease
                yield data
    yield decompressor.flush()
    if not decompressor.eof:
        raise zlib.error("the compressed data is incomplete")


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), GZIP_INPUT_BYTES):
            yield chunk[start : start + GZIP_INPUT_BYTES]
