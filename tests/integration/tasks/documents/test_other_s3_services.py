"""Documents in an S3 service over https that is not Amazon's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbox.errors import TransientError
from tasks.clients.responses import DeadlineReached
from tasks.documents import store_s3
from tasks.documents.store import Stored
from tasks.documents.store_factory import open_store
from tasks.documents.store_s3 import S3Store
from tests.support.keeping_peer import in_child
from tests.support.raw_bucket import RawBucket, running_raw_bucket

CONTENT = b"%PDF-1.7 " + b"x" * 1000
DOCUMENT = Stored("doc_1.pdf", "application/pdf", "0123", len(CONTENT))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawBucket]:
    with running_raw_bucket(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "of-the-tests")
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.write_bytes(CONTENT)
    return path


def test_a_store_that_keeps_the_body_as_sent_has_the_documents_own_bytes(bucket: RawBucket, part: Path) -> None:
    store = S3Store("s3://kept/x")
    assert store.save(part, DOCUMENT, lambda: None) == DOCUMENT
    assert bucket.content() == {"x/doc_1.pdf": CONTENT}
    assert store.find("doc_1") == DOCUMENT
    headers, _ = bucket.objects["/kept/x/doc_1.pdf"]
    assert not [name for name in headers if "checksum" in name.lower()]


def test_the_calls_of_a_process_share_a_connection(bucket: RawBucket, part: Path) -> None:
    store = open_store("s3://kept/shared")
    store.save(part, DOCUMENT, lambda: None)
    store.find("doc_1")
    assert len(bucket.accepted) == 1
    assert in_child(lambda: open_store("s3://kept/shared").find("doc_1")) == 0
    assert len(bucket.accepted) == 2
    store.find("doc_1")
    assert len(bucket.accepted) == 2


@pytest.mark.parametrize("method", ["PUT", "HEAD", "GET"])
def test_a_store_that_does_not_answer_is_waited_for_until_the_deadline(
    bucket: RawBucket, part: Path, method: str
) -> None:
    bucket.silent = method
    began = time.monotonic()
    with pytest.raises(DeadlineReached):
        S3Store("s3://kept/x").save(part, DOCUMENT, lambda: None, began + 1)
    assert time.monotonic() - began < 15  # boto3 alone tries for a minute


@pytest.mark.parametrize("silent", ["POST", "PUT"])
def test_an_upload_in_parts_ends_at_the_deadline(
    bucket: RawBucket, part: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(store_s3, "PART_BYTES", 500)
    bucket.silent = silent
    began = time.monotonic()
    with pytest.raises(DeadlineReached):
        S3Store("s3://kept/x").save(part, DOCUMENT, lambda: None, began + 1)
    assert time.monotonic() - began < 15
    assert bucket.content() == {}


def test_a_document_of_which_the_store_has_lost_bytes_is_not_stored(bucket: RawBucket, part: Path) -> None:
    bucket.cut = 9
    store = S3Store("s3://kept/x")
    with pytest.raises(TransientError, match="S3 stored 1000 bytes of a document of 1009"):
        store.save(part, DOCUMENT, lambda: None)
    assert (bucket.content(), store.find("doc_1")) == ({}, None)
    bucket.cut = 0
    assert store.save(part, DOCUMENT, lambda: None) == DOCUMENT


def test_a_document_that_another_attempt_left_damaged_is_not_taken_for_stored(bucket: RawBucket, part: Path) -> None:
    store = S3Store("s3://kept/x")
    store.save(part, DOCUMENT, lambda: None)
    headers, body = bucket.objects["/kept/x/doc_1.pdf"]
    bucket.objects["/kept/x/doc_1.pdf"] = headers, body + b"0\r\n"
    with pytest.raises(TransientError, match="S3 stored 1012 bytes of a document of 1009"):
        store.find("doc_1")
    assert store.find("doc_1") is None
