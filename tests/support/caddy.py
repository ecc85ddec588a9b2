"""The Caddy of the deployment, where one is installed, before the receiver of a test: by deploy/Caddyfile itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from dev.stack.servers import answers, free_ports, wait_until
from tests.support.stack import ROOT

CADDY = shutil.which("caddy")
OLDEST = (2, 11, 2)  # see deploy/Caddyfile


def installed() -> bool:
    """Whether there is one that is new enough."""
    said = subprocess.run([CADDY, "version"], capture_output=True, text=True, check=False).stdout if CADDY else ""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said)
    return found is not None and tuple(map(int, found.groups())) >= OLDEST


class Caddy:
    """Listens without TLS on a port of its own."""

    def __init__(self, folder: Path, receiver_port: int) -> None:
        self.port, self._health, self._receiver, self._folder = *free_ports(2), receiver_port, folder
        self.url = f"http://localhost:{self.port}"

    def __enter__(self) -> Caddy:
        text = (ROOT / "deploy" / "Caddyfile").read_text()
        text = text.replace("receiver:8000", f"127.0.0.1:{self._receiver}").replace(":2020", f":{self._health}")
        file = self._folder / "Caddyfile"
        file.write_text(text)
        home = {"XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(file)]
        with (self._folder / "caddy.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | home | {"DOMAIN": self.url}, stdout=log, stderr=log
            )
        wait_until(lambda: answers(f"{self.url}/livez"), seconds=20, what=f"Caddy; see {self._folder}/caddy.log")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.wait(10)
