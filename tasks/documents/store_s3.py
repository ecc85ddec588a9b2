"""DOCUMENT_STORE=s3://bucket/prefix. Endpoint, region and credentials are found as boto3 finds them (AWS_…).

It needs s3:ListBucket, ListBucketMultipartUploads, GetObject, PutObject and AbortMultipartUpload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inbox.errors import TransientError
from tasks.documents.lease_heartbeat import run_renewing_lease
from tasks.documents.store import Stored
from telemetry import tracing

PIECE_BYTES = 16 * 1024 * 1024  # what is in memory at a time; S3 takes 10,000 of them, and MAX_DOCUMENT_BYTES fewer
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")  # the answers to If-None-Match where the name is taken
# A lease must outlast one call with its tries.
PATIENCE = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})


class Bucket:
    """A bucket, with the digest of each document in its metadata."""

    def __init__(self, where: str) -> None:
        self._bucket, _, prefix = where.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._s3 = boto3.session.Session().client("s3", config=PATIENCE)

    def find(self, stem: str) -> Stored | None:
        with self._call("find"):
            for key in self._keys(stem):
                if key == self._prefix + stem or key.startswith(f"{self._prefix}{stem}."):
                    head = self._s3.head_object(Bucket=self._bucket, Key=key)
                    sha256 = head["Metadata"].get("sha256", "")
                    return Stored(key.removeprefix(self._prefix), head["ContentType"], sha256, head["ContentLength"])
        return None

    def keep(self, part: Path, document: Stored, renew: Callable[[], None]) -> Stored:
        target = {"Bucket": self._bucket, "Key": self._prefix + document.name}
        described = {**target, "ContentType": document.content_type, "Metadata": {"sha256": document.sha256}}
        try:
            with self._call("keep"), part.open("rb") as file:
                self._abort_others(target)
                if document.size <= PIECE_BYTES:
                    run_renewing_lease(lambda: self._s3.put_object(**described, Body=file, IfNoneMatch="*"), renew)
                else:
                    self._upload(described, target, file, renew)
        except _Taken:
            return self.find(document.name.partition(".")[0]) or document
        return document

    def read(self, name: str) -> IO[bytes]:
        with self._call("read"):
            body: IO[bytes] = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            return body

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        with tracing.call(what, self._s3.meta.endpoint_url), _named_errors():
            yield

    def _upload(self, described: dict[str, Any], target: dict[str, Any], file: IO[bytes], renew: Any) -> None:
        """In pieces, of which nobody sees any before the last step. An upload that fails is not left to be paid for."""
        upload = {**target, "UploadId": self._s3.create_multipart_upload(**described)["UploadId"]}
        try:
            pieces = [self._piece(upload, number, piece, renew) for number, piece in enumerate(_pieces(file), 1)]
            self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": pieces}, IfNoneMatch="*")
        except BaseException:
            with suppress(ClientError, BotoCoreError):  # then the next attempt does it
                self._s3.abort_multipart_upload(**upload)
            raise

    def _piece(self, upload: dict[str, Any], number: int, piece: bytes, renew: Any) -> dict[str, Any]:
        answer = run_renewing_lease(lambda: self._s3.upload_part(**upload, PartNumber=number, Body=piece), renew)
        renew()
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _abort_others(self, target: dict[str, Any]) -> None:
        """Uploads of this document by attempts that were killed, or have lost their lease: they are to fail."""
        found = self._s3.list_multipart_uploads(Bucket=self._bucket, Prefix=target["Key"])
        for upload in found.get("Uploads", ()):
            if upload["Key"] == target["Key"]:
                self._s3.abort_multipart_upload(**target, UploadId=upload["UploadId"])

    def _keys(self, stem: str) -> list[str]:
        found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + stem)
        return [str(row["Key"]) for row in found.get("Contents", ())]


class _Taken(Exception):
    """Another attempt has stored this document."""


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


@contextmanager
def _named_errors() -> Iterator[None]:
    """Ours in place of boto3's, which quote addresses and keys. All may pass: wrong settings are mended."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in TAKEN:
            raise _Taken from None
        raise TransientError(f"DOCUMENT_STORE: S3 answered {code}") from None
    except BotoCoreError as error:
        raise TransientError(f"DOCUMENT_STORE: S3 did not answer ({type(error).__name__})") from None
