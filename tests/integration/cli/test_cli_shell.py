"""`holdfast` in a shell: its documentation, completion and launcher."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.__main__ import holdfast
from dev.stack.environment import write_settings
from dev.stack.servers import Valkey
from tests.support.commands import Terminal, receiver
from tests.support.signed_deliveries import API_KEY
from tests.support.stack import ROOT

PACKAGES = ("bin", "cli", "web", "tasks", "inbox", "settings", "telemetry")
COMMON = {"--url", "--key-file", "--json"}


def commands(command: click.Command = holdfast, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(usage, command) of every command that is not a group."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        context = click.Context(command)
        arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
        yield " ".join((*path, *arguments)), command


def options(command: click.Command) -> set[str]:
    return {one.opts[-1] for one in command.params if isinstance(one, click.Option)}


def test_every_command_is_documented_with_all_its_options() -> None:
    page = (ROOT / "docs" / "cli.md").read_text().replace("\\|", "&")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    documented = {cells[1].strip(" `").replace("&", "|"): set(re.findall(r"--[a-z-]+", cells[2])) for cells in rows}
    assert documented == {usage: options(command) - COMMON for usage, command in commands()}


def test_every_command_has_a_json_option_and_help() -> None:
    for usage, command in commands():
        assert command.help, usage
        assert all(one.help for one in command.params if isinstance(one, click.Option)), usage
        assert "--json" in options(command) or usage.startswith("completion"), usage


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_completion_script_that_calls_holdfast(shell: str) -> None:
    made = Terminal({}).run("completion", shell)
    assert (made.code, f"_HOLDFAST_COMPLETE={shell}_complete" in made.out) == (0, True)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("de", ["dead"]), ("dead re", ["replay", "replays"]), ("events list --state su", ["succeeded"])],
)
def test_commands_options_and_values_are_completed(typed: str, completed: list[str]) -> None:
    environ = {**os.environ, "_HOLDFAST_COMPLETE": "bash_complete", "COMP_WORDS": f"holdfast {typed}"}
    environ["COMP_CWORD"] = str(len(typed.split()))
    done = subprocess.run(
        [sys.executable, "-m", "cli"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == completed


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with what the command line needs, a link to its launcher, and a folder with a module that must not be
    imported."""
    folder = tmp_path / "clone"
    for needed in (
        *ROOT.glob("*.py"),
        *(ROOT / name for name in PACKAGES),
    ):
        folder.mkdir(exist_ok=True)
        (folder / needed.name).symlink_to(needed)
    (folder / "bin").unlink()
    (folder / "bin").mkdir()
    (folder / "bin" / "holdfast").write_bytes((ROOT / "bin" / "holdfast").read_bytes())
    (folder / "bin" / "holdfast").chmod(0o755)
    (folder / "var" / "run").mkdir(parents=True)
    (tmp_path / "link").symlink_to("clone/bin/holdfast")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "settings.py").write_text("raise SystemExit('imported from the current directory')")
    return tmp_path


def test_the_launcher_finds_its_clone_and_uses_the_stack_of_make_run(clone: Path, valkey: Valkey) -> None:
    python = str(Path(sys.executable).parent)
    environ = {"PATH": f"{python}:{os.environ['PATH']}"}

    def stats(**more: str) -> subprocess.CompletedProcess[str]:
        command, where = [str(clone / "link"), "stats"], clone / "elsewhere"
        return subprocess.run(command, cwd=where, env=environ | more, capture_output=True, text=True, check=False)

    assert (stats().returncode, "no valid API key" in stats().stderr) == (2, True), "no stack is running"
    with receiver({"REDIS_URL": valkey.url, "API_KEYS": API_KEY}) as url:
        running = clone / "clone" / "var" / "run" / "settings.sh"
        write_settings(running, {"PORT": url.rpartition(":")[2], "API_KEYS": API_KEY, "HOME": "/none", "SOURCES": ""})
        assert "HOME" not in running.read_text()
        assert running.stat().st_mode & 0o077 == 0
        assert stats().returncode == 0, stats().stderr
        assert stats(HOLDFAST_URL="http://127.0.0.1:9").returncode == 2, "HOLDFAST_URL names another one"
