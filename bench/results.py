"""Results of a run, stored as JSON so that the page can be written again without a new run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from bench.rounds import Figures
from dev.stack.servers import valkey_binary

BARE = "bare Celery"
BARE_SQL = "bare Celery, one SQL row each"


@dataclass
class Results:
    """`rounds` by measurement and contender. `left_out`: why a contender is not compared, by its name."""

    quick: bool
    day: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    machine: str = ""
    versions: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)


def save(results: Results, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))


def load(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def machine() -> str:
    """Description of the machine and of its load before the run."""
    memory = psutil.virtual_memory().total / 1024**3
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, {kernel}, {load}"


def versions() -> str:
    node = [f"Node {_version('node')}"] if shutil.which("node") else []
    return ", ".join([f"Python {platform.python_version()}", f"Valkey {_version(valkey_binary())}", *node])


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.machine()


def _version(program: str) -> str:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bv=?(\d[\w.]*)", output)
    return found[1] if found else "?"
