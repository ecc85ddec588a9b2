"""Any stored payload is restored as it was signed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import example, given
from hypothesis import strategies as st

from inbox.packing import MAGIC, pack, unpack

LONG = b'{"id": "evt_1", "lines": [' + b'{"amount": 1900, "currency": "eur"}, ' * 100 + b"]}"


@given(st.binary(max_size=5000))
@example(b"")
@example(MAGIC)
@example(MAGIC + b"\x00" * 50)
@example(LONG)
def test_payloads_are_restored_byte_for_byte_and_grow_only_if_they_look_packed(body: bytes) -> None:
    kept = pack(body)
    assert unpack(kept) == body
    assert len(kept) <= len(body) or body.startswith(MAGIC)


def test_an_unpacked_payload_of_an_older_version_is_read_unchanged() -> None:
    assert unpack(LONG) == LONG


def test_simultaneous_threads_do_not_mix_their_payloads() -> None:
    bodies = [LONG + str(n).encode() for n in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda body: unpack(pack(body)), bodies)) == bodies
