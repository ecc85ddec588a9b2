"""What the documents say is there, is there; and what is there, they say."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from settings import Client, Settings, load

ROOT = Path(__file__).parents[3]
SETTINGS = {f.name.upper(): f.metadata["default"] for f in (*fields(Settings), *fields(Client))}


def documented() -> dict[str, str]:
    """Every variable in the tables of docs/settings.md with the default it is said to have."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/settings.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:3]]
        if len(cells) == 2 and cells[0].startswith("`"):
            names, defaults = (re.findall(r"`([^`]*)`", cell) for cell in cells)
            found |= dict(zip(names, defaults or [""] * len(names), strict=True))
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    assert documented() == SETTINGS


def test_the_example_values_of_the_readme_name_real_settings() -> None:
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"\b([A-Z]+_[A-Z_]+)=", text))
    assert {"DOC_SERVICE_URL", "PUBLIC_URL"} <= used <= set(SETTINGS)


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "ARCHITECTURE.md", "docs/settings.md", "CHANGELOG.md"):
        named = set(re.findall(r"`make ([a-z]+)`", (ROOT / page).read_text()))
        assert named <= targets, page


def test_every_file_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = "bench|cli|web|inbox|settings|tasks|telemetry|workers|dev|tests|docs|deploy"
    named = set(re.findall(rf"`((?:{folders})/[\w/.-]+)`", text))
    assert named, "it names none"
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_test_that_the_page_about_security_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text()))
    code = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert named - set(re.findall(r"^def (test_\w+)", code, re.MULTILINE)) == set()


def test_the_defaults_of_the_documents_load() -> None:
    assert load({}).retention_days > 30
