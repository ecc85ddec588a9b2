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

from bench.rounds import Acks, Drain, EndToEnd, Idle, Steady
from dev.stack.servers import valkey_binary

BARE = "bare Celery"
BARE_SQL = "bare Celery, one SQL row each"


@dataclass
class Results:
    """Rounds by contender. `left_out` gives the reason for each contender that is not compared."""

    quick: bool
    day: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    machine: str = ""
    versions: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    acks: dict[str, list[Acks]] = field(default_factory=dict)
    steady: dict[str, list[Steady]] = field(default_factory=dict)
    end_to_end: dict[str, list[EndToEnd]] = field(default_factory=dict)
    drain: dict[str, list[Drain]] = field(default_factory=dict)
    idle: dict[str, list[Idle]] = field(default_factory=dict)


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
    servers = {"Valkey": valkey_binary()} | ({"Node": "node"} if shutil.which("node") else {})
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{it} {_version(path)}" for it, path in servers.items())]
    )


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.machine()


def _version(program: str) -> str:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bv=?(\d[\w.]*)", output)
    return found[1] if found else "?"
