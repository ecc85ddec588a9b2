"""Calls to the document service: what is sent, and which responses are accepted."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbox.errors import PermanentError
from settings import load
from tasks.clients.document_service import StatusUpdate, fetch_status
from tests.support.business import NOW
from tests.support.peers import Answer, Peer


@pytest.mark.parametrize("key", ["", "key-of-the-document-service"])
def test_a_netrc_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Peer(lambda _: Answer(body=b"{}")) as peer:
        fetch_status(
            load({"DOC_SERVICE_URL": peer.url, "DOC_SERVICE_API_KEY": key, "PUBLIC_URL": "https://x"}), "t", NOW
        )
    (request,) = peer.requests
    assert request.headers.get("Authorization") == (f"Bearer {key}" if key else None)
    assert base64.b64encode(b"somebody:else").decode() not in str(request.headers)


def test_an_endless_response_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65536

    with (
        Peer(lambda _: Answer(200, {}, endless())) as peer,
        pytest.raises(PermanentError, match="answered with more than 1048576 bytes"),
    ):
        fetch_status(load({"DOC_SERVICE_URL": peer.url, "PUBLIC_URL": "https://x"}), "t", NOW)


@pytest.mark.parametrize(
    ("sha256", "digest"),
    [("AB" * 32, "ab" * 32), ("ab" * 31, None), ("q83v", None), (7, None), (["ab" * 32], None), (None, None)],
)
def test_an_invalid_digest_is_ignored(sha256: object, digest: str | None) -> None:
    assert StatusUpdate(sha256=sha256).digest == digest


@pytest.mark.parametrize(
    ("size", "length"), [(7, 7), (0, 0), (-1, None), (2**63, None), ("7", None), (True, None), (7.0, None)]
)
def test_an_invalid_size_is_ignored(size: object, length: int | None) -> None:
    assert StatusUpdate(size=size).length == length
