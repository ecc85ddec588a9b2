"""`holdfast` in this process, against a real receiver on loopback, or in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from click.testing import CliRunner

from cli.__main__ import holdfast
from dev.stack.servers import free_port
from settings import load
from tests.support.running_receiver import running_receiver
from tests.support.signed_deliveries import API_KEY
from tests.support.stack import ROOT


@dataclass(frozen=True)
class Result:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass
class Terminal:
    """Runs `holdfast` with these environment variables."""

    environ: dict[str, str]

    def run(self, *arguments: str, **environ: str) -> Result:
        result = CliRunner().invoke(holdfast, arguments, env=self.environ | environ, prog_name="holdfast")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environ},
            stdout=subprocess.PIPE,
            text=True,
        )


@contextmanager
def receiver(environ: Mapping[str, str]) -> Iterator[str]:
    """A receiver in a thread of this process; yields its URL."""
    settings = load({**environ, "PORT": str(free_port())})
    with running_receiver(settings):
        yield f"http://127.0.0.1:{settings.port}"


def terminal_for(url: str, **environ: str) -> Terminal:
    return Terminal({"HOLDFAST_URL": url, "HOLDFAST_API_KEY": API_KEY, **environ})
