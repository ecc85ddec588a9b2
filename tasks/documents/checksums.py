"""Digests of a file while it is being written, and the digest that a server announces in its headers."""

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
DIGEST_BYTES = {"sha512": 64, "sha256": 32, "md5": 16}
# `sha-256=:…:` in Repr-Digest and Content-Digest (RFC 9530), `SHA-256=…` in Digest (RFC 3230)
DIGEST_HEADER = re.compile(r"(?:^|[,\s])(sha-512|sha-256|md5)=:?([A-Za-z0-9+/]+={0,2}):?", re.IGNORECASE)


class Hasher:
    """Hashes a growing file in a thread; hashlib releases the GIL, so the download does not wait for it.

    It reads the bytes back from the file, so the digest covers what is stored, and all of it after a resume.
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

    def advance_to(self, size: int) -> None:
        """Hash up to this size (bytes): so much is in the file now."""
        self._ends.put(size)

    def result(self) -> dict[str, str]:
        """Wait, and return the digests in hex. Raises OSError if the file cannot be read."""
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
            raise OSError("the file is shorter than the bytes written to it")
        for digest in self._digests.values():
            digest.update(piece)


def announced_digest(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The strongest digest (algorithm, hex) in the headers of a response with a whole document; None without any."""
    fields = ",".join(headers.get(name, "") for name in ("Repr-Digest", "Content-Digest", "Digest"))
    announced = {name.lower().replace("-", ""): digest for name, digest in DIGEST_HEADER.findall(fields)}
    announced.setdefault("md5", headers.get("Content-MD5", ""))  # RFC 1864
    for algorithm, length in DIGEST_BYTES.items():
        digest = _decode(announced.get(algorithm, ""))
        if len(digest) == length:
            return algorithm, digest.hex()
    return None


def _decode(digest: str) -> bytes:
    try:
        return base64.b64decode(digest, validate=True)
    except (binascii.Error, ValueError):
        return b""
