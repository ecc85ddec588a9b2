"""A renamed setting accepts its old name, also as a file, with a warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from settings import SettingsError, deprecated_names, load


@pytest.fixture(autouse=True)
def port_was_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecated_names, "RENAMED", {"LISTEN_PORT": "PORT"})


def test_the_old_name_is_read_with_a_warning_that_names_the_new_one() -> None:
    with pytest.warns(FutureWarning, match="LISTEN_PORT is now called PORT"):
        assert load({"LISTEN_PORT": "8001"}).port == 8001


def test_the_old_name_may_also_name_a_file(tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("8002")
    with pytest.warns(FutureWarning, match="LISTEN_PORT_FILE is now called PORT_FILE"):
        assert load({"LISTEN_PORT_FILE": str(file)}).port == 8002


@pytest.mark.parametrize("new", ["PORT", "PORT_FILE"])
def test_both_names_at_once_stop_start_up(new: str) -> None:
    with pytest.raises(SettingsError, match="LISTEN_PORT and PORT are both set"):
        load({"LISTEN_PORT": "8001", new: "8002"})


def test_the_new_name_alone_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load({"PORT": "8003", "LISTEN_PORT": ""}).port == 8003
