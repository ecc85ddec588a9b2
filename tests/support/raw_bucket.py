"""An S3 service over https that is not Amazon's: it keeps the bytes of a request as they are sent, chunks and all."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme


class RawBucket(ThreadingHTTPServer):
    """The bucket `kept`: objects by key, with their headers; `cut` is how many bytes of each are lost.

    `accepted` has one entry for each connection; `silent` is a method that is not answered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.objects: dict[str, tuple[Mapping[str, str], bytes]] = {}
        self.cut = 0
        self.silent = ""
        self.accepted: list[Any] = []
        self.url = f"https://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        found = super().get_request()
        self.accepted.append(found[1])
        return found

    def content(self) -> dict[str, bytes]:
        return {key.removeprefix("/kept/"): body for key, (_, body) in self.objects.items()}


class _Handler(BaseHTTPRequestHandler):
    server: RawBucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed and self.command == self.server.silent:
            time.sleep(60)
        return parsed

    def do_POST(self) -> None:
        """An upload in parts."""
        self._answer(200, body=b"<Result><UploadId>1</UploadId></Result>")

    def do_PUT(self) -> None:
        body = b"".join(self._chunks()) if "chunked" in self.headers.get("Transfer-Encoding", "") else self._body()
        self.server.objects[self.path] = dict(self.headers.items()), body[: len(body) - self.server.cut]
        self._answer(200, {"ETag": '"1"'})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_HEAD(self) -> None:
        headers, body = self.server.objects[self.path]
        metadata = {name: value for name, value in headers.items() if name.lower().startswith("x-amz-meta-")}
        self._answer(200, {**metadata, "Content-Type": headers["Content-Type"]}, length=len(body))

    def do_DELETE(self) -> None:
        del self.server.objects[self.path]
        self._answer(204)

    def do_GET(self) -> None:
        keys = [] if "uploads" in self.path else list(self.server.content())
        rows = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
        self._answer(200, body=f"<Result>{rows}</Result>".encode())

    def _answer(self, status: int, headers: Mapping[str, str] = {}, body: bytes = b"", length: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_raw_bucket(folder: Path) -> Iterator[RawBucket]:
    """The service, and `ca.pem` in the folder, the authority of its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with RawBucket(context) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
