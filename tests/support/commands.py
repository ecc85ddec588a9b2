"""`holdfast` in this process, against a real receiver on loopback, or in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from click.testing import CliRunner
from werkzeug.serving import make_server

from cli.__main__ import holdfast
from settings import load
from tests.support.signed_deliveries import API_KEY
from tests.support.stack import ROOT
from web import create_app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass
class Terminal:
    """Where commands are typed, in this environment."""

    environ: dict[str, str]

    def run(self, *words: str, **environ: str) -> Ended:
        result = CliRunner().invoke(holdfast, words, env=self.environ | environ, prog_name="holdfast")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environ},
            stdout=subprocess.PIPE,
            text=True,
        )


@contextmanager
def receiver(environ: Mapping[str, str]) -> Iterator[str]:
    """Its address, while it runs in a thread of this process."""
    server = make_server("127.0.0.1", 0, create_app(load(environ)), threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def asking(url: str, **environ: str) -> Terminal:
    return Terminal({"HOLDFAST_URL": url, "HOLDFAST_API_KEY": API_KEY, **environ})
