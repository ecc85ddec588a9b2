"""How quick a big download is, and how much memory it takes, beside curl in the same run.

    python -m dev.measure_download --gigabytes 1 --rounds 3

A file is served on loopback. In turn curl fetches it, and a fresh process of ours does: received, digested, verified,
synced to disk and given its name. curl does only the first of that, so it is timed again with `sha256sum` and `sync`
behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from inbox.event import Event
from settings import load
from tasks.documents.transfer import fetch
from tasks.handler import Attempt

GIGABYTE = 1_000_000_000


class Files(ThreadingHTTPServer):
    """Serves one file, without copying it through this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(("127.0.0.1", 0), _File)
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class _File(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        with self.server.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", '"v1"')
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def download(url: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of one download of ours, in this process."""
    settings = load({"DOCUMENT_STORE": str(folder), "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1"})
    event = Event("documents", "msg_1", "completed", b"{}")
    attempt = Attempt("key", event, {}, 1, datetime.now(UTC), settings, lambda: None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    fetch(attempt, url, "doc_1", lambda _, __: None)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mb": peak / 1024, "more_mb": (peak - before) / 1024}


def _ours(url: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "dev.measure_download", "--fetch", url, "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _timed(command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _rounds(count: int, run: Callable[[str, Path], None], url: str) -> None:
    for _ in range(count):
        with tempfile.TemporaryDirectory(dir=Path.cwd() / "var") as folder:
            run(url, Path(folder))


def measure(size: int, rounds: int) -> None:
    """Print the medians."""
    found: dict[str, list[float]] = {"curl": [], "curl, sha256sum and sync": [], "ours": []}
    memory: list[dict[str, float]] = []

    def once(url: str, folder: Path) -> None:
        get = f"curl -sSf -o {folder}/curl {url}"
        found["curl"].append(_timed(get))
        (folder / "curl").unlink()
        found["curl, sha256sum and sync"].append(_timed(f"{get} && sha256sum {folder}/curl && sync {folder}/curl"))
        (folder / "curl").unlink()
        memory.append(_ours(url, folder))
        found["ours"].append(memory[-1]["seconds"])
        shutil.rmtree(folder / "documents", ignore_errors=True)

    Path("var").mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir="var") as file:
        _fill(Path(file.name), size)
        files = Files(Path(file.name))
        threading.Thread(target=files.serve_forever, daemon=True).start()
        _rounds(rounds, once, files.url)
        files.shutdown()
    _tell(found, memory, size)


def _fill(path: Path, size: int) -> None:
    piece = os.urandom(8 * 1024 * 1024)
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
        file.write(piece[: size % len(piece)])


def _tell(found: dict[str, list[float]], memory: list[dict[str, float]], size: int) -> None:
    ours = statistics.median(found["ours"])
    for name, times in found.items():
        middle = statistics.median(times)
        each = ", ".join(f"{seconds:.2f}" for seconds in times)
        speed, ratio = size / middle / 1e6, middle / ours
        print(f"{name:26} {middle:6.2f} s  {speed:6.0f} MB/s  ours is {ratio:.2f} times as fast  ({each})")
    peak, more = (max(one[name] for one in memory) for name in ("peak_mb", "more_mb"))
    print(f"peak memory of ours {peak:.0f} MB, {more:.0f} MB of it for the download")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.measure_download", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fetch", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fetch:
        print(json.dumps(download(arguments.fetch, arguments.folder / "documents")))
    else:
        measure(int(arguments.gigabytes * GIGABYTE), arguments.rounds)


if __name__ == "__main__":
    main()
