"""The peers' packages, from their locks, into var/bench: apart from ours, and only for the benchmark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "peers"


def install(folder: Path) -> None:
    """Whatever is not there yet. What fails is told in a line; whoever needs it is named as left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for make, lock in ((_python, HERE / "requirements.lock"), (_node, HERE / "bullmq" / "package-lock.json")):
        stamp = folder / f"{lock.parent.name}-{lock.name}"
        if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
            continue
        print(f"installing what {lock.parent.name}/{lock.name} names", flush=True)
        try:
            make(folder)
            stamp.write_bytes(lock.read_bytes())
        except (OSError, subprocess.SubprocessError) as error:
            print(f"  that failed: {type(error).__name__}: {error}")


def _python(folder: Path) -> None:
    target = folder / "peers"
    subprocess.run([sys.executable, "-m", "venv", "--clear", target], check=True, timeout=120)
    pip: list[str | Path] = [target / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", HERE / "requirements.lock"], check=True, timeout=600)


def _node(folder: Path) -> None:
    """Not `npm ci`: it refuses a lock that lacks binary packages for systems that are not this one."""
    target = folder / "bullmq"
    target.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "bullmq" / name, target)
    how = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "install", *how], cwd=target, check=True, timeout=600, stdout=subprocess.DEVNULL)
