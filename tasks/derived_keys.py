"""One key for each purpose, derived from an API key. Pure functions.

Links to documents and console sessions are signed without a setting of their own, and removing a key from API_KEYS ends
its links and sessions. A link can be used to test guesses of the key, so scrypt makes each guess expensive; and
a derived key says nothing about the API key or about the key for another purpose.
"""

from __future__ import annotations

import functools
import hashlib
import hmac

# Of the OWASP Password Storage Cheat Sheet, for 16 MiB of memory: 0.2 s of CPU, once per process and API key.
SCRYPT_COST = {"n": 2**14, "r": 8, "p": 5}


def derive_key(api_key: str, purpose: str) -> bytes:
    """The key for this purpose, 32 bytes. The same in every process."""
    return hkdf(_root(api_key), purpose.encode())


@functools.cache
def _root(api_key: str) -> bytes:
    return hashlib.scrypt(api_key.encode(), salt=b"holdfast api key", dklen=32, **SCRYPT_COST)


def hkdf(secret: bytes, info: bytes, *, salt: bytes = b"", length: int = 32) -> bytes:
    """HKDF with SHA-256: https://www.rfc-editor.org/rfc/rfc5869, section 2. `length` is in bytes, at most 8160."""
    key = hmac.digest(salt, secret, "sha256")
    found = block = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        found += block
    return found[:length]
