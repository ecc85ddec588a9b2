"""README's `stripe listen` line, run by Stripe's own command line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "README.md"
STRIPE_CLI = "@stripe/cli@1.52.0"


@pytest.fixture(scope="session")
def stripe_cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, to install Stripe's command line")
    folder = tmp_path_factory.mktemp("stripe-cli")
    install = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", STRIPE_CLI]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip(f"{STRIPE_CLI} could not be installed")
    return folder / "node_modules/.bin/stripe"


def test_the_stripe_listen_line_of_the_readme_is_accepted_by_stripes_command_line(stripe_cli: Path) -> None:
    (line,) = [line for line in README.read_text().splitlines() if line.startswith("stripe listen ")]
    arguments = shlex.split(line, comments=True)[1:]
    nobody = ["--api-key", "sk_test_of_the_tests", "--api-base", "http://127.0.0.1:9"]
    listening = subprocess.run([stripe_cli, *arguments, *nobody], capture_output=True, text=True, check=False)
    assert "Error while authenticating with Stripe" in listening.stderr  # its first call: all arguments are accepted
