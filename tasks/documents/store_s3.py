"""DOCUMENT_STORE=s3://bucket/prefix. boto3 reads endpoint, region and credentials from its own settings (AWS_…).

The credentials need s3:ListBucket, ListBucketMultipartUploads, GetObject, PutObject, DeleteObject and
AbortMultipartUpload.

Stores other than Amazon's may reject boto3's own checksums, or keep them as part of the file: over https it sends them
in chunks around the content (https://github.com/boto/boto3/issues/4435). Content-MD5 is known to all of them.
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inbox.errors import TransientError
from tasks.clients.connection_pool import most_idle
from tasks.clients.responses import connection_errors
from tasks.documents.store import Stored
from tasks.lease_heartbeat import run_renewing_lease
from tasks.time_limit import run_until
from telemetry import tracing

T = TypeVar("T")
Run = Callable[[Callable[[], Any]], Any]  # runs a call while the lease is renewed, until the deadline
ABORT_SECONDS = 2.0
PART_BYTES = 16 * 1024 * 1024  # held in memory; S3 allows 10,000 parts, more than MAX_DOCUMENT_BYTES needs
NAME_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")  # error codes of If-None-Match for an existing name
# One call with its retries must be shorter than a lease.
CLIENT_CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 3},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class S3Store:
    """An S3 bucket; the digest and size of each document are in the object's metadata."""

    def __init__(self, where: str) -> None:
        self._bucket, _, prefix = where.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._s3 = boto3.session.Session().client(
            "s3", config=CLIENT_CONFIG.merge(Config(max_pool_connections=most_idle()))
        )

    def find(self, stem: str) -> Stored | None:
        with self._call("find"):
            for key in self._keys(stem):
                if key == self._prefix + stem or key.startswith(f"{self._prefix}{stem}."):
                    return self._load(key)
        return None

    def save(self, part: Path, document: Stored, renew: Callable[[], None], deadline: float = math.inf) -> Stored:
        def run(work: Callable[[], T]) -> T:
            return run_renewing_lease(work, renew, deadline)

        target = {"Bucket": self._bucket, "Key": self._prefix + document.name}
        metadata = {"sha256": document.sha256, "size": str(document.size)}
        described = {**target, "ContentType": document.content_type, "Metadata": metadata}
        try:
            with self._call("save"), part.open("rb") as file:
                run(lambda: self._abort_others(target))
                if document.size <= PART_BYTES:
                    data = file.read()
                    upload = {**described, "Body": data, "ContentMD5": _md5(data)}
                    run(lambda: self._s3.put_object(**upload, IfNoneMatch="*"))
                else:
                    self._upload(described, target, _read_parts(file, renew), run)
                return run(lambda: self._load(target["Key"]))
        except _NameExists:
            return run(lambda: self.find(document.name.partition(".")[0])) or document

    def read(self, name: str) -> IO[bytes]:
        with self._call("read"):
            body: IO[bytes] = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            return body

    def _load(self, key: str) -> Stored:
        """The stored document. Raises TransientError, and deletes it, if the store has kept another number of bytes."""
        head = self._s3.head_object(Bucket=self._bucket, Key=key)
        size, metadata = head["ContentLength"], head["Metadata"]
        if metadata.get("size", str(size)) != str(size):
            self._s3.delete_object(Bucket=self._bucket, Key=key)
            raise TransientError(f"DOCUMENT_STORE: S3 stored {size} bytes of a document of {metadata['size']}")
        return Stored(key.removeprefix(self._prefix), head["ContentType"], metadata.get("sha256", ""), size)

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        with tracing.call(what, self._s3.meta.endpoint_url), _translate_errors():
            yield

    def _upload(self, described: dict[str, Any], target: dict[str, Any], data: Iterator[bytes], run: Run) -> None:
        """Multipart upload: the object appears with the last call. A failed one is aborted: S3 bills its parts."""
        created = run(lambda: self._s3.create_multipart_upload(**described))
        upload = {**target, "UploadId": created["UploadId"]}
        try:
            parts = [self._upload_part(upload, number, part, run) for number, part in enumerate(data, 1)]
            complete = {**upload, "MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
            run(lambda: self._s3.complete_multipart_upload(**complete))
        except BaseException:
            with suppress(ClientError, BotoCoreError, TimeoutError):  # the next attempt aborts it
                run_until(time.monotonic() + ABORT_SECONDS, lambda: self._s3.abort_multipart_upload(**upload))
            raise

    def _upload_part(self, upload: dict[str, Any], number: int, data: bytes, run: Run) -> dict[str, Any]:
        """`data` is in memory: if the deadline is reached, the thread that goes on reads nothing of the file."""
        part = {**upload, "PartNumber": number, "Body": data, "ContentMD5": _md5(data)}
        return {"ETag": run(lambda: self._s3.upload_part(**part))["ETag"], "PartNumber": number}

    def _abort_others(self, target: dict[str, Any]) -> None:
        """Abort uploads of this document by attempts that were killed or have lost their lease."""
        response = self._s3.list_multipart_uploads(Bucket=self._bucket, Prefix=target["Key"])
        for upload in response.get("Uploads", ()):
            if upload["Key"] == target["Key"]:
                self._s3.abort_multipart_upload(**target, UploadId=upload["UploadId"])

    def _keys(self, stem: str) -> list[str]:
        response = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + stem)
        return [str(row["Key"]) for row in response.get("Contents", ())]


class _NameExists(Exception):
    """An object of this name exists: another attempt has stored the document."""


def _md5(data: bytes) -> str:
    """As in Content-MD5 (RFC 1864)."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _read_parts(file: IO[bytes], renew: Callable[[], None]) -> Iterator[bytes]:
    """Renews the lease after each part: many that take less than a second each may take long together."""
    while data := file.read(PART_BYTES):
        yield data
        renew()


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Replace boto3's errors, which quote URLs and keys, by TransientError: wrong settings can be corrected, too."""
    try:
        with connection_errors("DOCUMENT_STORE: S3", BotoCoreError):
            yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in NAME_EXISTS:
            raise _NameExists from None
        raise TransientError(f"DOCUMENT_STORE: S3 returned {code}") from None
