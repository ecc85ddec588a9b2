"""Rules of the house that import-linter cannot see, for it knows packages only."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.routes import TASKS

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "web", "workers", "tasks", "inbox", "telemetry", "settings")


def product_files() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_the_environment_is_read_in_settings_only() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    }
    assert readers == {"settings/model.py"}


@pytest.mark.parametrize(("package", "allowed"), [("telemetry", {"telemetry"}), ("settings", {"settings"})])
def test_the_lowest_packages_import_nothing_above_them(package: str, allowed: set[str]) -> None:
    ours = {*PACKAGES, "celeryconfig", "dev"}
    assert {name for file in (ROOT / package).rglob("*.py") for name in imports(file) & ours} == allowed


def test_nothing_of_the_product_imports_the_developers_tools() -> None:
    assert [path for path in product_files() if imports(path) & {"dev", "bench", "tests"}] == []


def test_every_handler_is_kept_from_web() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (one for one in linter["contracts"] if one["name"] == "web imports no handler")
    kept, allowed = contract["forbidden_modules"], {line.split(" -> ")[1] for line in contract["ignore_imports"]}
    handlers = {task.handler.partition(":")[0] for task in TASKS.values()}
    assert {name for name in handlers if not name.startswith(tuple(kept)) or name in allowed} == set()


def test_the_root_holds_one_python_file_only() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["celeryconfig.py"]
