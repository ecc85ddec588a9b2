"""Derived keys: HKDF by its specification, and one key per API key and purpose."""

from __future__ import annotations

import pytest

from tasks.derived_keys import derive_key, hkdf

# RFC 5869, appendices A.1 to A.3: secret, salt, info, length in bytes, and the derived key.
VECTORS = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("secret", "salt", "info", "length", "derived"), VECTORS)
def test_hkdf_yields_the_vectors_of_rfc_5869(secret: str, salt: str, info: str, length: int, derived: str) -> None:
    found = hkdf(bytes.fromhex(secret), bytes.fromhex(info), salt=bytes.fromhex(salt), length=length)
    assert found.hex() == derived


def test_every_api_key_and_purpose_has_a_key_of_its_own() -> None:
    keys = ("first-key-0123456789abcdef", "second-key-0123456789abcde")
    derived = {derive_key(key, purpose) for key in keys for purpose in ("content link", "console session")}
    assert len(derived) == 4
    assert all(len(key) == 32 for key in derived)
    assert derive_key(keys[0], "content link") in derived
