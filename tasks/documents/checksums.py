"""Digests of a file that is still being written, and what a server says they are to be."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from queue import SimpleQueue

CHUNK_BYTES = 1024 * 1024
LENGTHS = {"sha512": 64, "sha256": 32, "md5": 16}
# `sha-256=:…:` in Repr-Digest and Content-Digest (RFC 9530), `SHA-256=…` in Digest (RFC 3230)
NAMED = re.compile(r"(?:^|[,\s])(sha-512|sha-256|md5)=:?([A-Za-z0-9+/]+={0,2}):?", re.IGNORECASE)


class Hasher:
    """Follows a file as it grows, in a thread of its own: hashlib lets go of the GIL, so the download does not wait.

    It reads what is in the file, not what was meant to be: a resumed download is digested whole.
    """

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self._path = path
        self._digests = {name: hashlib.new(name, usedforsecurity=name != "md5") for name in algorithms}
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._error: OSError | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Hasher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._ends.put(None)

    def upto(self, size: int) -> None:
        """So many bytes are in the file now."""
        self._ends.put(size)

    def result(self) -> dict[str, str]:
        """The digests, in hex, of all that was told of. Waits; raises OSError if the file could not be read."""
        self._ends.put(None)
        self._thread.join()
        if self._error:
            raise self._error
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _follow(self) -> None:
        try:
            with self._path.open("rb", buffering=0) as file:
                buffer = memoryview(bytearray(CHUNK_BYTES))
                while (end := self._ends.get()) is not None:
                    while not self._stopped and file.tell() < end:
                        self._digest(buffer[: file.readinto(buffer[: end - file.tell()])])
        except OSError as error:
            self._error = error

    def _digest(self, piece: memoryview) -> None:
        if not piece:
            raise OSError("the file is shorter than what was written")
        for digest in self._digests.values():
            digest.update(piece)


def announced(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The digest (algorithm, hex) that an answer with a whole document says it has; the strongest of those we know."""
    named = ",".join(headers.get(name, "") for name in ("Repr-Digest", "Content-Digest", "Digest"))
    said = {name.lower().replace("-", ""): digest for name, digest in NAMED.findall(named)}
    said.setdefault("md5", headers.get("Content-MD5", ""))  # RFC 1864
    for algorithm, length in LENGTHS.items():
        digest = _decoded(said.get(algorithm, ""))
        if len(digest) == length:
            return algorithm, digest.hex()
    return None


def _decoded(digest: str) -> bytes:
    try:
        return base64.b64decode(digest, validate=True)
    except (binascii.Error, ValueError):
        return b""
