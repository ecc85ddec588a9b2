"""What a whole run found: kept as JSON, so that the page can be written again without it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench.latency import Idle
from bench.rounds import Acks, Drain, EndToEnd, Steady
from dev.stack.servers import valkey_binary

BARE = "bare Celery"
BARE_SQL = "bare Celery, one SQL row each"
KINDS: dict[str, Any] = {"acks": Acks, "steady": Steady, "end_to_end": EndToEnd, "drain": Drain, "idle": Idle}


@dataclass
class Results:
    """Rounds by contender. `left_out`: who is not compared, and why."""

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
    path.write_text(json.dumps(asdict(results), indent=1))


def load(path: Path) -> Results:
    raw = json.loads(path.read_text())
    for name, kind in KINDS.items():
        raw[name] = {who: [kind(**one) for one in rounds] for who, rounds in raw.get(name, {}).items()}
    return Results(**raw)


def machine() -> str:
    """What it ran on, and how many processes wanted its cores just before."""
    memory = psutil.virtual_memory().total / 1024**3
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    before = f"load {os.getloadavg()[0]:.1f} before the run"
    return f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, {kernel}, {before}"


def versions() -> str:
    said = [_said([valkey_binary(), "--version"]), _said(["node", "--version"])] if shutil.which("node") else []
    return ", ".join([f"Python {platform.python_version()}", *said])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _said(command: list[str]) -> str:
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    number = next((word.removeprefix("v=").removeprefix("v") for word in words if word.startswith("v")), "?")
    return f"{'Node' if command[0] == 'node' else 'Valkey'} {number}"
