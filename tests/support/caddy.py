"""The Caddy of the deployment before the receiver of a test: by deploy/Caddyfile itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psutil

from dev.stack.servers import answers, free_ports, wait_until
from tests.support.stack import ROOT

CADDY = str(Path(sys.executable).with_name("caddy"))


class Caddy:
    """Listens without TLS on a port of its own."""

    def __init__(self, folder: Path, receiver_port: int, *, flower_port: int = 9, host: str = "localhost") -> None:
        self.port, self._health, self._receiver, self._folder = *free_ports(2), receiver_port, folder
        self._flower = flower_port
        self.url = f"http://{host}:{self.port}"

    def __enter__(self) -> Caddy:
        text = (ROOT / "deploy" / "Caddyfile").read_text()
        text = text.replace("receiver:8000", f"127.0.0.1:{self._receiver}").replace(":2020", f":{self._health}")
        text = text.replace("flower:5555", f"127.0.0.1:{self._flower}")
        file = self._folder / "Caddyfile"
        file.write_text(text)
        home = {"XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(file)]
        with (self._folder / "caddy.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | home | {"DOMAIN": self.url}, stdout=log, stderr=log
            )
        wait_until(
            lambda: answers(f"{self.url}/console/sign-in"), seconds=20, what=f"Caddy; see {self._folder}/caddy.log"
        )
        return self

    def memory_bytes(self) -> int:
        return int(psutil.Process(self._process.pid).memory_full_info().pss)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._process.wait(10)
