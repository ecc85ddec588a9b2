"""Installs the peers' packages from their locks into var/bench, separate from Holdfast's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.contenders import INSTALLED, PEERS


def install() -> None:
    """Install what is missing or outdated. A failure is printed; the contenders that need it are then left out."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for install_lock, lock in ((_python, PEERS / "requirements.lock"), (_node, PEERS / "bullmq" / "package-lock.json")):
        stamp = INSTALLED / f"{lock.parent.name}-{lock.name}"
        if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
            continue
        print(f"installing {lock.parent.name}/{lock.name}", flush=True)
        try:
            install_lock(lock)
            stamp.write_bytes(lock.read_bytes())
        except (OSError, subprocess.SubprocessError) as error:
            print(f"  failed: {type(error).__name__}: {error}")


def _python(lock: Path) -> None:
    target = INSTALLED / "peers"
    subprocess.run([sys.executable, "-m", "venv", "--clear", target], check=True, timeout=120)
    pip: list[str | Path] = [target / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True, timeout=600)


def _node(lock: Path) -> None:
    """Not `npm ci`, which refuses a lock without the binary packages of other systems."""
    target = INSTALLED / "bullmq"
    target.mkdir(exist_ok=True)
    for path in (lock, lock.with_name("package.json")):
        shutil.copy(path, target)
    command = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=target, check=True, timeout=600, stdout=subprocess.DEVNULL)
