"""What was not checked is never called safe; the lists of parts are those of the lock and of the image."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SAFE = {"name": "flask", "version": "3.1.3", "vulns": []}
VULNERABLE = {"name": "jinja2", "version": "3.1.5", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]}
SKIPPED = {"name": "idna", "version": "3.20", "skip_reason": "Dependency not found on PyPI"}
installed = pytest.mark.skipif(
    not importlib.util.find_spec("pip_audit") or not importlib.util.find_spec("cyclonedx_py"),
    reason="make .venv/installed installs pip-audit and cyclonedx-bom",
)


def audit(*locks: str, **environ: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "dev.audit", *locks]
    environment = {**os.environ, **environ}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([SAFE], 0, "1 of 1 packages checked, 0 advisories"),
        ([SAFE, VULNERABLE], 1, "jinja2 3.1.5: PYSEC-1, fixed in 3.1.6"),
        ([SAFE, SKIPPED], 3, "1 packages NOT CHECKED, the first because: Dependency not found on PyPI"),
        ([SKIPPED, VULNERABLE], 1, "1 packages NOT CHECKED"),
        ([], 3, "NOT CHECKED"),
        (None, 3, "the.lock: NOT CHECKED: it is unreachable"),
    ],
)
def test_only_a_lock_whose_packages_were_all_checked_passes(
    tmp_path: Path, packages: list[dict[str, Any]] | None, code: int, words: str
) -> None:
    answer = "" if packages is None else json.dumps({"dependencies": packages})
    (tmp_path / "pip_audit.py").write_text(
        f"import sys\nprint({answer!r})\nprint('it is unreachable', file=sys.stderr)"
    )
    found, lines = audit("the.lock", PYTHONPATH=str(tmp_path))
    assert found == code
    assert any(words in line for line in lines), lines


@installed
def test_the_real_pip_audit_without_a_network_says_that_nothing_was_checked() -> None:
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    code, lines = audit("requirements.lock", **nowhere, no_proxy="", NO_PROXY="")
    assert code == 3
    assert "NOT CHECKED" in lines[-1]


@installed
def test_the_bill_of_materials_is_that_of_the_lock_with_its_hashes_and_always_the_same(tmp_path: Path) -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nsbom:")[2].partition("cyclonedx_py ")[2].splitlines()[0]
    texts = []
    for name in ("first.json", "second.json"):
        arguments = recipe.replace("var/sbom.json", str(tmp_path / name)).split()
        subprocess.run([sys.executable, "-m", "cyclonedx_py", *arguments], cwd=ROOT, check=True, capture_output=True)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    parts = json.loads(texts[0])["components"]
    lock = (ROOT / "requirements.lock").read_text()
    hashes = [one["content"] for part in parts for at in part["externalReferences"] for one in at.get("hashes", ())]
    assert {f"{part['name']}=={part['version']}" for part in parts} == {
        line.split()[0] for line in lock.splitlines() if line[:1].isalnum()
    }
    assert len(hashes) == lock.count("--hash=sha256:")
    assert str(ROOT) not in texts[0]


@installed
@pytest.mark.slow
def test_the_image_gets_the_bill_of_materials_of_what_is_installed_in_it(tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    command = dockerfile.partition("/bin/cyclonedx-py ")[2].splitlines()[0]
    assert "COPY --from=sbom /srv/holdfast/sbom.cdx.json ." in dockerfile
    written = tmp_path / "sbom.cdx.json"
    arguments = command.replace('"$(command -v python)"', sys.executable).replace("sbom.cdx.json", str(written))
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *arguments.split()], cwd=ROOT, check=True, capture_output=True
    )
    bill = json.loads(written.read_text())
    listed = {f"{part['name']}=={part['version']}".lower() for part in bill["components"]}
    assert bill["metadata"]["component"]["name"] == "holdfast"
    assert {f"{name}=={version(name)}" for name in ("flask", "celery", "pip")} <= listed
    assert str(ROOT) not in written.read_text()
