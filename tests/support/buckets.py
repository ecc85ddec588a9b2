"""S3 for tests: moto's server in a process of its own, which keeps its buckets in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from dev.stack.servers import answers, free_port, wait_until


class S3:
    """The server, and a look into its buckets."""

    def __init__(self, url: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key-of-the-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="key-of-the-tests",
            aws_secret_access_key="secret-of-the-tests",
            region_name="us-east-1",
        )

    def fresh(self) -> str:
        """The name of a new bucket."""
        name = f"documents-{os.urandom(6).hex()}"
        self.client.create_bucket(Bucket=name)
        return name

    def content(self, bucket: str) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        keys = [row["Key"] for row in found]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def uploads(self, bucket: str) -> list[str]:
        """Uploads that were begun and neither completed nor aborted."""
        return [row["Key"] for row in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@contextmanager
def running_s3(folder: Path) -> Iterator[S3]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/moto-api/"), seconds=60, what="moto")
        yield S3(url)
    finally:
        process.terminate()
        process.wait(10)
