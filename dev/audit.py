"""Known vulnerabilities of the locked packages: `make audit`.

pip-audit asks the advisory database of PyPI about each version. It says "No known vulnerabilities found" also where it
reached no database; here a package that was not checked is a failure of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOCKS = ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock")  # each has all of the one before
OPTIONS = ("--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off")
VULNERABLE, NOT_CHECKED = 1, 3  # exit codes; 2 is a wrong option


def main(locks: Sequence[str]) -> int:
    """Print each advisory, and for each lock how many of its packages were checked. Returns the exit code."""
    codes = {_audit(lock) for lock in locks}
    return next((code for code in (VULNERABLE, NOT_CHECKED) if code in codes), 0)


def _audit(lock: str) -> int:
    command = [sys.executable, "-m", "pip_audit", *OPTIONS, "--requirement", lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"{lock}: NOT CHECKED: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return NOT_CHECKED
    return _report(lock, packages)


def _report(lock: str, packages: Sequence[Mapping[str, Any]]) -> int:
    skipped = [one for one in packages if "skip_reason" in one]
    advisories = [(one, found) for one in packages for found in one.get("vulns", ())]
    for package, found in advisories:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        print(f"{lock}: {package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    print(f"{lock}: {len(packages) - len(skipped)} of {len(packages)} packages checked, {len(advisories)} advisories")
    if skipped or not packages:
        reason = skipped[0]["skip_reason"] if skipped else "it names no package"
        print(f"{lock}: {len(skipped)} packages NOT CHECKED, the first because: {reason}")
    if advisories:
        return VULNERABLE
    return NOT_CHECKED if skipped or not packages else 0


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    sys.exit(main(sys.argv[1:] or [str(root / lock) for lock in LOCKS]))
