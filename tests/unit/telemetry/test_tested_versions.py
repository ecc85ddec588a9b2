"""The versions of libraries whose private parts are used: one table, the same in pyproject.toml, and a warning."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from telemetry import tested_versions
from telemetry.tested_versions import TESTED, is_tested, warn

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())


def test_pyproject_bounds_each_library_by_the_tested_versions() -> None:
    bounds = {re.split(r"[\[>]", line)[0]: line for line in PYPROJECT["project"]["dependencies"]}
    for name, (oldest, untested) in TESTED.items():
        assert re.sub(r"\[.*\]", "", bounds[name]) == f"{name}>={oldest},<{untested}"


def test_the_installed_versions_are_tested_and_nothing_is_logged() -> None:
    with capture_logs() as lines:
        warn()
    assert lines == []


@pytest.mark.parametrize(
    ("installed", "tested"),
    [("0.53.9", False), ("0.54", True), ("0.54.0", True), ("0.54.7", True), ("0.55", False), ("0.55.0rc1", False)],
)
def test_a_version_is_tested_inside_its_range(monkeypatch: pytest.MonkeyPatch, installed: str, tested: bool) -> None:
    monkeypatch.setattr(tested_versions, "version", lambda _: installed)
    assert is_tested("uvicorn") == tested


def test_one_warning_names_every_untested_version_and_its_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested_versions, "version", lambda name: {"uvicorn": "0.60.1", "kombu": "6.0"}.get(name, "8"))
    monkeypatch.setattr(tested_versions, "TESTED", {name: TESTED[name] for name in ("uvicorn", "kombu", "redis")})
    with capture_logs() as lines:
        warn("webhooks are slower")
    (line,) = lines
    assert (line["log_level"], line["installed"]) == ("warning", ["uvicorn 0.60.1", "kombu 6.0"])
    assert "uvicorn>=0.54,<0.55" in line["tested"]
    assert line["consequences"] == ["webhooks are slower"]
